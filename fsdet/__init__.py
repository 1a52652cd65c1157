"""The few-shot detector and its trainer."""
