"""The engines that are compared. Each `Engine` here lives in a worker process of its own (`worker.py`)."""
