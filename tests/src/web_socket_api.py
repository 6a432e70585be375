"""The Lambda function of a WebSocket API.

It keeps the table of connections as many such APIs do, and tells a client that says anything its own
connection id (no client learns that in any other way).
"""

import json
import os
import sys
import time
import urllib.request

TABLE = os.environ["CONNECTIONS_TABLE"]


def dynamodb(operation, body):
    scope = f"test/20260101/{os.environ['AWS_REGION']}/dynamodb/aws4_request"
    headers = {
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none",
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Target": f"DynamoDB_20120810.{operation}",
    }
    request = urllib.request.Request(
        os.environ["AWS_ENDPOINT_URL"], json.dumps(body).encode(), headers
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()


def handler(event, _context):
    context = event["requestContext"]
    connection = context["connectionId"]
    # Worth a line: MiniStack waits 50 ms longer for the log of a function that says nothing.
    print(context["eventType"], connection, file=sys.stderr)
    if context["eventType"] == "MESSAGE":
        return {"statusCode": 200, "body": json.dumps({"yourConnectionId": connection})}
    key = {"connection_id": {"S": connection}}
    if TABLE and context["eventType"] == "CONNECT":
        sk = (event.get("queryStringParameters") or {}).get("SK", "")
        item = {**key, "sk": {"S": sk}, "created_at": {"N": str(int(time.time()))}}
        dynamodb("PutItem", {"TableName": TABLE, "Item": item})
    elif TABLE:
        dynamodb("DeleteItem", {"TableName": TABLE, "Key": key})
    return {"statusCode": 200}
