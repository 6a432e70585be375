"""Gives the origin's Lambda one change, some times over, and prints what each took: JSON.

    measure.py <sk> <runs>
"""

import json
import os
import sys
import time

from chalice.test import Client

from app import app


def change(sk, value):
    """The event of a change of one item."""
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
    taken = []
    with Client(app) as client:
        # Connects, and is not counted.
        client.lambda_.invoke("notify", change("1", 1))
        for run in range(int(runs)):
            begun, cpu = time.monotonic(), time.process_time()
            client.lambda_.invoke("notify", change(sk, run + 2))
            taken.append([time.monotonic() - begun, time.process_time() - cpu])
    print(json.dumps(taken))


main(*sys.argv[1:])
