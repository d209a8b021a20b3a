"""What a finished or growing run says, as tables: one reader for each kind that is not a plain run."""
