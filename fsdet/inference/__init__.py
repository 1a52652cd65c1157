"""Detection for people: pictures and videos in, boxes in their own pixels out."""
