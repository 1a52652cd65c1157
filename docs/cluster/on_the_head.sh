#!/usr/bin/env bash
# Starts a sweep from the head of docs/cluster/ray-cluster.yaml. Further words go to the command: --resume, --set …
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=/dev/null
. ~/sweep.env # export OPTUNA_STORAGE=… MLFLOW_TRACKING_URI=… and the credentials of the storage
export RAY_AUTH_MODE=token

.venv/bin/python -m sweeps.run stage2_clip_dfl.yaml --name cluster --address auto \
  --set storage.path=s3://my-bucket/sweeps "$@"
