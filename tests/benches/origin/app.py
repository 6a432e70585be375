"""The original application, reduced to its Lambda function on the table's stream. It posts to the stored
connections in a `for` loop."""

import json
import os

import boto3
from boto3.dynamodb.conditions import Key
from chalice import Chalice

app = Chalice(app_name="origin")
connections = boto3.resource("dynamodb").Table("sample-connections-dev")
api = boto3.client("apigatewaymanagementapi", endpoint_url=os.environ["WEB_SOCKET_API"])


@app.on_dynamodb_record(stream_arn=os.environ["STREAM_ARN"])
def notify(event):
    for record in event:
        if record.event_name != "MODIFY":
            continue
        pk, sk = record.keys["PK"]["S"], record.keys["SK"]["S"]
        if "target_pk" not in pk or "target_sk" not in sk:
            continue
        new = record.new_image["TargetAttribute"]
        if new == record.old_image["TargetAttribute"]:
            continue
        pk, sk = pk.split("#")[1], sk.split("#")[1]
        message = json.dumps({"pk": pk, "sk": sk, "value": new["N"]}).encode()
        stored = connections.query(IndexName="sk-index", KeyConditionExpression=Key("sk").eq(sk))
        for connection in stored["Items"]:
            api.post_to_connection(ConnectionId=connection["connection_id"], Data=message)
