"""Model providers and the tools around them."""

from __future__ import annotations

from gtft.corpus.redaction.rule import Rule
from gtft.corpus.redaction.rules.guards import is_random, token

_W = "A-Za-z0-9_-"
RULES: tuple[Rule, ...] = (
    token("anthropic_key", "sk-ant-", _W, 20, "200"),
    token("openai_key", "sk-(?:proj|svcacct|admin|None|service)-", _W, 20, "300"),
    token("openrouter_key", "sk-or-", _W, 30, "120"),
    token("langfuse_key", "sk-lf-", _W, 30, "60"),
    token("model_api_key", "sk-", _W, 18, "300", guard=is_random),
    token("huggingface_token", "(?:hf|api_org|hf_oauth|hf_jwt)_", "A-Za-z0-9", 30, "80"),
    token("groq_key", "gsk_", "A-Za-z0-9", 40, "80"),
    token("xai_key", "xai-", "A-Za-z0-9", 40, "120"),
    token("replicate_token", "r8_", "A-Za-z0-9", 30, "60"),
    token("perplexity_key", "pplx-", "A-Za-z0-9", 32, "80"),
    token("cerebras_key", "csk-", "a-z0-9", 32, "80", guard=is_random),
    token("fireworks_key", "(?:fw|fpk)_", "A-Za-z0-9", 22, "60", guard=is_random),
    token("together_key", "(?:tgp_v1|together)_", _W, 30, "80", guard=is_random),
    token("voyage_key", "(?:pa|al)-", _W, 40, "60", guard=is_random),
    token("jina_key", "jina_", "A-Za-z0-9", 40, "80"),
    token("nvidia_key", "nvapi-", _W, 40, "100"),
    token("langsmith_key", "ls(?:v2)?_(?:pt_|sk_|_)?", "A-Za-z0-9_", 32, "80", guard=is_random),
    token("tavily_key", "tvly-", _W, 24, "80", guard=is_random),
    token("firecrawl_key", "fc-", "0-9a-f", 32, "32", guard=is_random),
    token("elevenlabs_key", "sk_", "0-9a-f", 40, "60", guard=is_random),
    token("e2b_key", "e2b_", "0-9a-f", 32, "60", guard=is_random),
    token("modal_token", "a[ks]-", "A-Za-z0-9", 22, "26", guard=is_random),
    token("cursor_key", "(?:key|crsr)_", "0-9a-f", 60, "70", guard=is_random),
    token("wandb_key", "wandb_v1_", _W, 40, "100"),
    token("anyscale_key", "esecret_", "A-Za-z0-9", 24, "80"),
    token("apify_token", "apify_(?:api|proxy)_", "A-Za-z0-9", 30, "60"),
)
