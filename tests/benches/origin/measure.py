"""Calls the Lambda function with one change per run. Prints seconds and CPU seconds of each run as JSON.

    measure.py <sk> <runs>
"""

import json
import os
import sys
import time

from chalice.test import Client

from app import app


def change(sk, value):
    """The event for a change of one item."""
    keys = {"PK": {"S": "target_pk#fuga"}, "SK": {"S": f"target_sk#{sk}"}}
    stream = {
        "ApproximateCreationDateTime": 1790000000,
        "Keys": keys,
        "OldImage": {**keys, "TargetAttribute": {"N": str(value - 1)}},
        "NewImage": {**keys, "TargetAttribute": {"N": str(value)}},
        "SequenceNumber": f"1{value:020}",
        "SizeBytes": 100,
        "StreamViewType": "NEW_AND_OLD_IMAGES",
    }
    record = {
        "eventID": str(value),
        "eventName": "MODIFY",
        "eventSourceARN": os.environ["STREAM_ARN"],
        "awsRegion": "eu-west-1",
        "dynamodb": stream,
    }
    return {"Records": [record]}


def main(sk, runs):
    costs = []
    with Client(app) as client:
        # The first call opens the connections, so it does not count.
        client.lambda_.invoke("notify", change("1", 1))
        for run in range(int(runs)):
            start, cpu = time.monotonic(), time.process_time()
            client.lambda_.invoke("notify", change(sk, run + 2))
            costs.append([time.monotonic() - start, time.process_time() - cpu])
    print(json.dumps(costs))


main(*sys.argv[1:])
