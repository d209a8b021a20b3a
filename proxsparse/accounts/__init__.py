"""Who may log in to the explorer: names, hashed passwords and roles, in a file that the operator keeps."""
