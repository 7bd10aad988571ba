"""Chat, mail and webhooks. A webhook's URL is the secret, host and all."""

from __future__ import annotations

from gtft.corpus.redaction.rule import Rule
from gtft.corpus.redaction.rules.guards import is_body, is_random, is_token, token

RULES: tuple[Rule, ...] = (
    token("slack_token", "xox[abceoprs](?:\\.xox[bp])?-", "A-Za-z0-9-", 10, "300"),
    token("slack_token", "xapp-", "A-Za-z0-9-", 10, "300"),
    token("slack_token", "xwfp-", "A-Za-z0-9-", 10, "300"),
    token("slack_cookie", "xoxd-", "A-Za-z0-9%+/=_-", 20, "400"),
    Rule(
        "webhook_url",
        r"https?://(?:hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/[\w/+-]{20,200}"
        r"|(?:\w{1,20}\.)?discord(?:app)?\.com/api/(?:v\d{1,2}/)?webhooks/\d{5,25}/[\w-]{20,100}"
        r"|[\w.-]{1,100}\.webhook\.office\.com/[\w/@.-]{20,400}"
        r"|[\w.:-]{1,100}\.logic\.azure\.com[^\s\"'<>]{20,400}"
        r"|[\w.-]{1,60}\.(?:environment\.api\.)?powerplatform\.com[^\s\"'<>]{20,500}"
        r"|hooks\.zapier\.com/hooks/catch/[\w/]{8,100}"
        r"|chat\.googleapis\.com/v1/spaces/[^\s\"'<>]{20,300}"
        r"|(?:maker|hook)\.(?:ifttt|eu\d|us\d|make|integromat)[\w.]{0,20}/[\w/-]{16,200}"
        r"|open\.(?:feishu\.cn|larksuite\.com)/open-apis/bot/v2/hook/[\w-]{20,60}"
        r"|oapi\.dingtalk\.com/robot/send\?access_token=\w{20,100}"
        r"|qyapi\.weixin\.qq\.com/cgi-bin/webhook/send\?key=[\w-]{20,60}"
        r"|[\w.-]{1,100}/(?:api/)?(?:hooks|webhooks?)/(?:[\w-]{1,40}/){0,3}[\w-]{0,60}\d[\w-]{19,100})",
        (
            r"://hooks\.(?:slack|zapier)",
            r"discord(?:app)?\.com/api/",
            r"\.webhook\.office\.com/",
            r"\.logic\.azure\.com",
            r"\.powerplatform\.com",
            r"chat\.googleapis\.com/v1/spaces/",
            r"://(?:maker|hook)\.",
            r"/bot/v2/hook/",
            r"/robot/send\?access_token",
            r"/webhook/send\?key",
            r"://[\w./-]{1,100}/(?:hooks|webhooks?)/[\w/-]{20}",
        ),
        is_body,
    ),
    Rule(
        "discord_token",
        r"[MNO][A-Za-z\d_-]{23,28}\.[\w-]{6}\.[\w-]{27,40}",
        (r"[MNO][A-Za-z\d_-]{23}[A-Za-z\d_-]{0,5}\.[\w-]{6}\.[\w-]{20}",),
        is_token,
        not_before=r"\w.-",
    ),
    Rule(
        "telegram_token",
        r"\d{8,10}:[A-Za-z0-9_-]{35,36}",
        (r"\d{8}:[A-Za-z0-9_-]{35}",),
        is_body,
        not_after=r"\w-",
    ),
    token("sendgrid_key", "SG\\.[\\w-]{16,32}\\.", "\\w-", 16, "64"),
    Rule(
        "twilio_key",
        r"(?:SK|AC|PK)[0-9a-f]{32}",
        guard=is_token,
        not_before="A-Za-z0-9",
        not_after="A-Za-z0-9",
    ),
    Rule("mailgun_key", r"key-[0-9a-f]{32}", not_before=r"\w", not_after=r"\w"),
    Rule(
        "mailgun_key", r"[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8}", not_before=r"\w-", not_after=r"\w-"
    ),
    Rule("mailchimp_key", r"[0-9a-f]{32}-us\d{1,2}", not_before=r"\w"),
    token("brevo_key", "x(?:keysib|smtpsib)-", "A-Za-z0-9-", 40, "120"),
    token("resend_key", "re_", "A-Za-z0-9_", 24, "60", guard=is_random),
    token("mailersend_key", "mlsn\\.", "0-9a-f", 40, "80"),
    token("onesignal_key", "os_v2_(?:app|org)_", "a-z0-9", 60, "120"),
    token("telnyx_key", "KEY0", "A-F0-9", 30, "80", guard=is_random),
    token("intercom_token", "dG9r", "A-Za-z0-9+/=_-", 56, "80", guard=is_random),
    token("matrix_token", "(?:syt_|mat_|mct_)", "A-Za-z0-9_", 24, "200", guard=is_random),
    token("zulip_webhook", "zulip_", "A-Za-z0-9", 32, "40", guard=is_random),
    token("facebook_token", "EAA[A-Za-z0-9]", "A-Za-z0-9", 80, "400", guard=is_random),
    token("twitter_token", "AAAAAAAAAAAAAAAAAAAAA", "A-Za-z0-9%", 60, "200", guard=None),
    token("instagram_token", "IG(?:QV|AA)", "A-Za-z0-9_-", 80, "400", guard=is_random),
)
