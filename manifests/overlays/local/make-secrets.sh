#!/bin/sh
# Prints the three Secrets of the local overlay with fresh random passwords, for `kubectl create --filename -`.
# Make them once: what PostgreSQL, MLflow and SeaweedFS have stored was made with these passwords.
set -eu

random() { LC_ALL=C tr -dc 'A-Za-z0-9' < /dev/urandom | head -c "$1"; }

namespace=${1:-stepcoder}
access_key=$(random 20)
secret_key=$(random 40)
postgres=$(random 32)
mlflow=$(random 32)
session=$(random 32)

cat <<YAML
apiVersion: v1
kind: Secret
metadata: {name: stepcoder, namespace: $namespace}
stringData:
  AWS_ACCESS_KEY_ID: $access_key
  AWS_SECRET_ACCESS_KEY: $secret_key
  MLFLOW_TRACKING_USERNAME: stepcoder
  MLFLOW_TRACKING_PASSWORD: $mlflow
---
apiVersion: v1
kind: Secret
metadata: {name: stepcoder-object-store, namespace: $namespace}
stringData:
  s3.json: >-
    {"identities": [{"name": "stepcoder", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    "credentials": [{"accessKey": "$access_key", "secretKey": "$secret_key"}]}]}
---
apiVersion: v1
kind: Secret
metadata: {name: stepcoder-mlflow, namespace: $namespace}
stringData:
  POSTGRES_PASSWORD: $postgres
  MLFLOW_AUTH_ADMIN_USERNAME: stepcoder
  MLFLOW_AUTH_ADMIN_PASSWORD: $mlflow
  MLFLOW_FLASK_SERVER_SECRET_KEY: $session
YAML
