"""Inference: images and videos in, boxes in pixels of the originals out."""
