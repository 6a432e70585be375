"""Lambda function of a WebSocket API.

It stores connections as many such APIs do, and responds to every message with the client's
connection id. A client has no other way to learn it.
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
    with urllib.request.urlopen(request, timeout=30) as response:
        response.read()


def handler(event, _context):
    context = event["requestContext"]
    connection = context["connectionId"]
    # Printed because MiniStack waits 50 ms longer for a function without output.
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
