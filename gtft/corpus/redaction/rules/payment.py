"""Payment, shops, shipping."""

from __future__ import annotations

from gtft.corpus.redaction.rule import Rule
from gtft.corpus.redaction.rules.guards import is_random, token

RULES: tuple[Rule, ...] = (
    token("stripe_key", "(?:sk|rk|pk)_(?:live|test|prod)_", "A-Za-z0-9_", 10, "260"),
    token("stripe_key", "whsec_", "A-Za-z0-9+/=_-", 20, "100"),
    token(
        "square_token", "(?:EAAA|sq0[a-z]{3}-|sqOatp-)", "A-Za-z0-9_-", 20, "120", guard=is_random
    ),
    Rule(
        "braintree_token",
        r"access_token\$(?:production|sandbox)\$[0-9a-z]{12,20}\$[0-9a-f]{32}",
        (r"access_token\$(?:production|sandbox)\$",),
    ),
    token("shopify_token", "shp(?:at|ca|pa|ss|tka|ua)_", "A-Za-z0-9", 30, "60"),
    token("razorpay_key", "rzp_(?:live|test)_", "A-Za-z0-9", 14, "30"),
    token("paypal_token", "A21AA", "A-Za-z0-9_-", 80, "120"),
    token("flutterwave_key", "FLW(?:SEC|PUB)K(?:_TEST|_LIVE)?-", "A-Za-z0-9-", 24, "80"),
    token("plaid_token", "access-(?:sandbox|development|production)-", "0-9a-f-", 36, "36"),
    token("adyen_key", "AQE", "A-Za-z0-9+/=_.<>{}()-", 60, "300", guard=is_random),
    token("easypost_key", "EZ[AT]K", "A-Za-z0-9", 50, "80"),
    token("duffel_token", "duffel_(?:test|live)_", "A-Za-z0-9_=-", 40, "60"),
    token("shippo_token", "shippo_(?:live|test)_", "A-Za-z0-9", 36, "60"),
    Rule("lob_key", r"(?:live|test)_(?:pub_)?[a-f0-9]{32,60}", not_before=r"\w-"),
    token("coinbase_key", "cb_(?:live|test)_", "A-Za-z0-9", 24, "80"),
)
