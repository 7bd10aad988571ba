"""The tables ``gtft_*``: one schema for SQLite and Dolt (text keys, times in epoch microseconds)."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

metadata = sa.MetaData()


def _key(length: int = 255) -> sa.String:
    return sa.String(length)


# A recipe may be longer than MySQL's TEXT, which ends at 64 KiB.
_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")

schema = sa.Table(
    "gtft_schema",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("applied_us", sa.BigInteger, nullable=False),
)

runs = sa.Table(
    "gtft_runs",
    metadata,
    sa.Column("id", _key(64), primary_key=True),
    sa.Column("recipe_name", _key(), nullable=False),
    sa.Column("recipe_hash", _key(80), nullable=False),
    sa.Column("recipe", _TEXT, nullable=False),
    sa.Column("role", _key(64), nullable=False),
    sa.Column("epic_bead", _key(), nullable=True),
    sa.Column("actor", _key(), nullable=False),
    sa.Column("root", _TEXT, nullable=False),
    sa.Column("desired", _key(16), nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
)

stages = sa.Table(
    "gtft_stages",
    metadata,
    sa.Column("run_id", _key(64), primary_key=True),
    sa.Column("stage", _key(16), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("bead_id", _key(), nullable=True),
    sa.Column("state", _key(16), nullable=False),
    sa.Column("reason", _key(16), nullable=True),
    sa.Column("reason_text", _TEXT, nullable=False),
    sa.Column("token", _key(), nullable=True),
    sa.Column("lease_until_us", sa.BigInteger, nullable=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("worker", _key(), nullable=True),
    sa.Column("reviewer", _key(), nullable=True),
    sa.Column("artifact_id", _key(80), nullable=True),
    sa.Column("started_us", sa.BigInteger, nullable=True),
    sa.Column("updated_us", sa.BigInteger, nullable=False),
    sa.Index("gtft_stages_state", "state"),
    sa.Index("gtft_stages_bead", "bead_id"),
)

events = sa.Table(
    "gtft_events",
    metadata,
    sa.Column("run_id", _key(64), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("stage", _key(16), nullable=True),
    sa.Column("kind", _key(32), nullable=False),
    sa.Column("actor", _key(), nullable=False),
    sa.Column("text", _TEXT, nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
    # Which unit of work wrote it: after a lost COMMIT this says whether the change landed.
    sa.Column("unit", _key(32), nullable=True),
)

artifacts = sa.Table(
    "gtft_artifacts",
    metadata,
    sa.Column("id", _key(80), primary_key=True),
    sa.Column("kind", _key(32), nullable=False),
    sa.Column("path", _TEXT, nullable=False),
    sa.Column("summary", _TEXT, nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
)

lineage = sa.Table(
    "gtft_lineage",
    metadata,
    sa.Column("child", _key(80), primary_key=True),
    sa.Column("parent", _key(80), primary_key=True),
    sa.Index("gtft_lineage_parent", "parent"),
)

models = sa.Table(
    "gtft_models",
    metadata,
    sa.Column("id", _key(80), primary_key=True),
    sa.Column("name", _key(), nullable=False),
    sa.Column("role", _key(64), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("status", _key(16), nullable=False),
    sa.Column("run_id", _key(64), nullable=False),
    sa.Column("corpus_id", _key(80), nullable=False),
    sa.Column("adapter_id", _key(80), nullable=False),
    sa.Column("eval_id", _key(80), nullable=False),
    sa.Column("card_id", _key(80), nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
    # Dolt would merge two registrations that both count to the same number.
    sa.Index("gtft_models_of_role", "role", "version", unique=True),
)

aliases = sa.Table(
    "gtft_aliases",
    metadata,
    sa.Column("name", _key(64), primary_key=True),
    sa.Column("model_id", _key(80), nullable=False),
    # Why it may not be pruned, where the alias is a pin; "" otherwise.
    sa.Column("pin", _TEXT, nullable=False),
    sa.Column("actor", _key(), nullable=False),
    sa.Column("updated_us", sa.BigInteger, nullable=False),
)

deployments = sa.Table(
    "gtft_deployments",
    metadata,
    sa.Column("id", _key(32), primary_key=True),
    sa.Column("model_id", _key(80), nullable=False),
    sa.Column("role", _key(64), nullable=False),
    # "" = every rig of the town.
    sa.Column("rig", _key(), nullable=False),
    sa.Column("mode", _key(16), nullable=False),
    sa.Column("state", _key(16), nullable=False),
    sa.Column("reason", _key(16), nullable=True),
    sa.Column("reason_text", _TEXT, nullable=False),
    sa.Column("actor", _key(), nullable=False),
    # What it was made with and what was measured since, as JSON.
    sa.Column("detail", _TEXT, nullable=False),
    sa.Column("figures", _TEXT, nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
    sa.Column("updated_us", sa.BigInteger, nullable=False),
    sa.Column("ended_us", sa.BigInteger, nullable=True),
    sa.Index("gtft_deployments_place", "role", "rig"),
)

incidents = sa.Table(
    "gtft_incidents",
    metadata,
    sa.Column("id", _key(32), primary_key=True),
    sa.Column("model_id", _key(80), nullable=False),
    sa.Column("deployment_id", _key(32), nullable=True),
    sa.Column("bead_id", _key(), nullable=True),
    sa.Column("title", _TEXT, nullable=False),
    # The safety item that every later eval asks, as JSON; "" when none could be made.
    sa.Column("item", _TEXT, nullable=False),
    sa.Column("actor", _key(), nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
)

consents = sa.Table(
    "gtft_consents",
    metadata,
    sa.Column("id", _key(32), primary_key=True),
    sa.Column("rig", _key(), nullable=False),
    # The last day, YYYY-MM-DD; "" = until it is revoked.
    sa.Column("until", _key(10), nullable=False),
    sa.Column("purpose", _key(64), nullable=False),
    sa.Column("given_by", _key(), nullable=False),
    sa.Column("actor", _key(), nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
    sa.Column("revoked_us", sa.BigInteger, nullable=True),
    sa.Column("revoked_by", _key(), nullable=True),
    sa.Index("gtft_consents_rig", "rig"),
)

withdrawals = sa.Table(
    "gtft_withdrawals",
    metadata,
    sa.Column("id", _key(32), primary_key=True),
    sa.Column("kind", _key(16), nullable=False),
    # A name, or "hmac:" and the keyed hash of one.
    sa.Column("who", _key(), nullable=False),
    sa.Column("reason", _TEXT, nullable=False),
    sa.Column("actor", _key(), nullable=False),
    # The corpora that held it when it was withdrawn, as a JSON list of ids.
    sa.Column("touched", _TEXT, nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
)

outbox = sa.Table(
    "gtft_outbox",
    metadata,
    sa.Column("run_id", _key(64), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kind", _key(16), nullable=False),
    sa.Column("payload", _TEXT, nullable=False),
    sa.Column("token", _key(), nullable=True),
    sa.Column("lease_until_us", sa.BigInteger, nullable=True),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("last_error", _TEXT, nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
    sa.Column("done_us", sa.BigInteger, nullable=True),
    sa.Index("gtft_outbox_done", "done_us"),
)
