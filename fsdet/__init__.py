"""The few-shot detector and its trainer."""

import os

# Ultralytics would install packages by itself, even while an image is opened
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
