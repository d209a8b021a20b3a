"""What a worker process does, a module for each kind of run."""
