"""The runner: dispatch, claim and lease, a worker per process, evidence, review, outbox."""
