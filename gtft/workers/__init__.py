"""The workers: one script per stage, each in its own process. They read a job and write an artifact."""
