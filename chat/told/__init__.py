"""What was said in the hall before somebody came: any member tells it, and it is marked as told."""
