"""Documents with a planted secret, made from a seed: kind of secret x context x form.

Shapes stand for values: ``{A20}`` is 20 letters and digits. Only random characters of this run fill them,
so that no file holds anything that a scanner takes for a secret.
"""

from __future__ import annotations

import base64
import json
import random
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

FORMS = ("plain", "json", "json2", "cat_n", "diff", "base64", "wrapped", "ansi", "url", "bare")
_SETS = {
    "U": string.ascii_uppercase + string.digits,
    "L": string.ascii_lowercase,
    "a": string.ascii_lowercase + string.digits,
    "A": string.ascii_letters + string.digits,
    "h": string.digits + "abcdef",
    "d": string.digits,
    "B": string.ascii_letters + string.digits + "+/",
    "W": string.ascii_letters + string.digits + "-_",
    "P": string.ascii_letters + string.digits + "!#%^*_-+",
    "b": "qpzry9x8gf2tvdw0s3jn54khce6mua7l",
}
_PART = re.compile(r"\{([ULaAhdBWPb])(\d+)\}")
_WORDS = (
    "amber",
    "falcon",
    "river",
    "copper",
    "window",
    "garden",
    "silver",
    "marble",
    "rocket",
    "planet",
    "candle",
    "forest",
)
_SEED_WORDS = (
    "abandon",
    "ability",
    "lemon",
    "velvet",
    "ozone",
    "pistol",
    "quarter",
    "rabbit",
    "siren",
    "tunnel",
    "uncle",
    "wagon",
    "zebra",
)


@dataclass(frozen=True)
class Kind:
    """``own``: contexts of this kind only; ``key``: words of the name under which it is assigned."""

    name: str
    shape: str
    key: str = ""
    own: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """``secret``: positions (code points) of the secret's characters, white space left out."""

    kind: str
    form: str
    context: str
    text: str
    value: str
    secret: tuple[int, ...]


def _pem(label: str, lines: int, head: str = "") -> str:
    body = "\n".join("{B64}" for _ in range(lines))
    return f"-----BEGIN {label}-----\n{head}{body}\n{{B20}}==\n-----END {label}-----"


_PRIVATE = " PRIVATE" + " KEY"
_CONN = "Server=tcp:db.corp.internal,1433;Database=app;User ID=svc;{0}={1};Encrypt=True;"

# fmt: off
KINDS: tuple[Kind, ...] = (
    Kind('aws_access_key', 'AKIA{U16}', 'aws access key id'),
    Kind('aws_secret_key', '{B40}', 'aws secret access key'),
    Kind('aws_session_token', 'IQoJb3JpZ2luX2Vj{B240}', 'aws session token'),
    Kind('gcp_api_key', 'AIza{W35}', 'google api key'),
    Kind('gcp_oauth_secret', 'GOCSPX-{W28}', 'google client secret'),
    Kind('gcp_access_token', 'ya29.a0{W120}', 'access token'),
    Kind('azure_storage', '{B86}==', '', ('DefaultEndpointsProtocol=https;AccountName=prodlogs;AccountKey=@;EndpointSuffix=core.windows.net', 'az storage blob list --account-name prodlogs --account-key @', 'AZURE_STORAGE_KEY="@"')),
    Kind('azure_sas', '{B43}%3D', '', ('https://prodlogs.blob.core.windows.net/c/x.gz?sv=2022-11-02&se=2026-01-01&sr=b&sp=r&sig=@',)),
    Kind('azure_client_secret', '{A3}8Q~{A34}', 'azure client secret'),
    Kind('digitalocean', 'dop_v1_{h64}', 'digitalocean token'),
    Kind('cloudflare', '{W40}', 'cloudflare api token'),
    Kind('heroku', 'HRKU-{h8}-{h4}-{h4}-{h4}-{h12}', 'heroku api key'),
    Kind('github_classic', 'ghp_{A36}', 'github token'),
    Kind('github_fine', 'github_pat_{A22}_{A59}', 'gh token'),
    Kind('github_app', 'ghs_{A36}', 'installation token'),
    Kind('gitlab', 'glpat-{W20}', 'gitlab token'),
    Kind('gitlab_runner', 'glrt-{W20}', 'runner token'),
    Kind('bitbucket', 'ATBB{A28}{h8}', 'bitbucket app password'),
    Kind('npm', 'npm_{A36}', 'npm token', ('//registry.npmjs.org/:_authToken=@',)),
    Kind('pypi', 'pypi-AgEIcHlwaS5vcmc{W120}', 'twine password', ('[pypi]\n  username = __token__\n  password = @',)),
    Kind('rubygems', 'rubygems_{h48}', 'gem host api key'),
    Kind('crates', 'cio{A32}', 'cargo registry token'),
    Kind('dockerhub', 'dckr_pat_{W27}', 'docker password', ('docker login -u acme -p @', 'echo @ | docker login --username acme --password-stdin')),
    Kind('terraform', '{A14}.atlasv1.{A67}', 'tf token app terraform io'),
    Kind('vault', 'hvs.{W92}', 'vault token'),
    Kind('anthropic', 'sk-ant-api03-{W93}AA', 'anthropic api key'),
    Kind('openai_old', 'sk-{A20}T3BlbkFJ{A20}', 'openai api key'),
    Kind('openai_project', 'sk-proj-{W74}T3BlbkFJ{W74}', 'openai api key'),
    Kind('huggingface', 'hf_{A34}', 'hf token'),
    Kind('groq', 'gsk_{A52}', 'groq api key'),
    Kind('xai', 'xai-{A80}', 'xai api key'),
    Kind('replicate', 'r8_{A37}', 'replicate api token'),
    Kind('perplexity', 'pplx-{A48}', 'perplexity api key'),
    Kind('cohere', '{A40}', 'cohere api key'),
    Kind('mistral', '{A32}', 'mistral api key'),
    Kind('slack_bot', 'xoxb-{d12}-{d13}-{A24}', 'slack bot token'),
    Kind('slack_user', 'xoxp-{d11}-{d12}-{d12}-{h32}', 'slack token'),
    Kind('slack_app', 'xapp-1-A{U10}-{d13}-{h64}', 'slack app token'),
    Kind('slack_webhook', 'https://hooks.slack.com/services/T{U8}/B{U10}/{A24}', 'slack webhook url'),
    Kind('discord_bot', 'MT{A24}.G{A5}.{W38}', 'discord token'),
    Kind('discord_webhook', 'https://discord.com/api/webhooks/{d18}/{W68}', 'discord webhook'),
    Kind('telegram', '{d10}:AA{W33}', 'telegram bot token', ('https://api.telegram.org/bot@/getMe',)),
    Kind('teams_webhook', 'https://acme.webhook.office.com/webhookb2/{h8}-{h4}-{h4}-{h4}-{h12}@{h8}-{h4}-{h4}-{h4}-{h12}/IncomingWebhook/{h32}/{h8}-{h4}-{h4}-{h4}-{h12}', 'teams webhook'),
    Kind('twilio', '{h32}', 'twilio auth token'),
    Kind('twilio_key', 'SK{h32}', 'twilio api key'),
    Kind('sendgrid', 'SG.{W22}.{W43}', 'sendgrid api key'),
    Kind('mailgun', 'key-{h32}', 'mailgun api key', ("curl -s --user 'api:@' https://api.mailgun.net/v3/x/messages",)),
    Kind('mailchimp', '{h32}-us14', 'mailchimp api key'),
    Kind('stripe_secret', 'sk_live_{A24}', 'stripe secret key', ('curl https://api.stripe.com/v1/charges -u @:',)),
    Kind('stripe_restricted', 'rk_live_{A99}', 'stripe key'),
    Kind('stripe_webhook', 'whsec_{A32}', 'stripe webhook secret'),
    Kind('square', 'EAAA{W60}', 'square access token'),
    Kind('braintree', 'access_token$production${a16}${h32}', 'braintree access token'),
    Kind('paypal', 'E{W79}', 'paypal client secret'),
    Kind('shopify', 'shpat_{h32}', 'shopify token'),
    Kind('datadog', '{h32}', 'dd api key'),
    Kind('sentry', 'sntrys_{A60}{W80}', 'sentry auth token'),
    Kind('sentry_dsn', '{h32}', '', ('SENTRY_DSN=https://@@o4504.ingest.sentry.io/450455', 'dsn: "https://@@o11.ingest.us.sentry.io/99"')),
    Kind('grafana', 'glsa_{A32}_{h8}', 'grafana token'),
    Kind('newrelic', 'NRAK-{U27}', 'new relic api key'),
    Kind('pagerduty', 'u+{A18}', 'pagerduty api key'),
    Kind('linear', 'lin_api_{A40}', 'linear api key'),
    Kind('notion', 'ntn_{d11}{A35}', 'notion token'),
    Kind('figma', 'figd_{W40}', 'figma token'),
    Kind('postman', 'PMAK-{h24}-{h34}', 'postman api key'),
    Kind('airtable', 'pat{A14}.{h64}', 'airtable token'),
    Kind('databricks', 'dapi{h32}', 'databricks token'),
    Kind('snowflake', '{P14}', 'snowflake password'),
    Kind('algolia', '{h32}', 'algolia admin key'),
    Kind('okta', '00{W40}', 'okta api token', ('Authorization: SSWS @',)),
    Kind('auth0', '{W64}', 'auth0 client secret'),
    Kind('tailscale', 'tskey-auth-{A12}CNTRL-{A32}', 'tailscale authkey'),
    Kind('age', 'AGE-SECRET-KEY-1{U58}', '', ('# created: 2025-01-02\n@', 'key: "@"')),
    Kind('minisign', 'RWRTY0Iy{B200}', '', ('untrusted comment: minisign encrypted secret key\n@',)),
    Kind('pem_rsa', _pem('RSA' + _PRIVATE, 12), '', ('@', 'cat id_rsa\n@', 'tls.key: |\n@')),
    Kind('pem_ec', _pem('EC' + _PRIVATE, 2), '', ('@', "signing_key = '''@'''")),
    Kind('pem_openssh', _pem('OPENSSH' + _PRIVATE, 6), '', ('@', '$ cat ~/.ssh/id_ed25519\n@')),
    Kind('pem_encrypted', _pem('RSA' + _PRIVATE, 8, 'Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,{U32}\n\n'), '', ('@',)),
    Kind('pgp', _pem('PGP' + _PRIVATE + ' BLOCK', 10, 'Version: GnuPG v2\n\n'), '', ('@', 'gpg --import <<EOF\n@\nEOF')),
    Kind('gcp_service_account', '-----BEGIN' + _PRIVATE + '-----\\n{B64}\\n{B64}\\n{B64}\\n{B64}\\n{B40}\\n-----END' + _PRIVATE + '-----\\n', '', ('{"type": "service_account", "project_id": "p-1", "private_key": "@", "client_email": "x@p-1.iam"}',)),
    Kind('jwt', 'eyJhbGciOiJIUzI1NiJ9.eyJ{W90}.{W43}', 'id token', ('Authorization: Bearer @', 'Set-Cookie: session=@; HttpOnly; Path=/')),
    Kind('database_url', '{A9}', '', ('DATABASE_URL=postgres://app:@@db.corp.internal:5432/main', 'mongodb_uri: "mongodb+srv://svc:@@cluster0.ab1cd.mongodb.net/x"', 'redis://:@@cache.corp.internal:6379/0', 'mysql+pymysql://root:@@10.2.3.4/app', 'amqps://guest1:@@mq.corp.internal/vh')),
    Kind('database_url_short', '{A6}', '', ('psql postgresql://app:@@localhost/dev', 'connecting to mssql://sa:@@sql1:1433')),
    Kind('url_basic_auth', '{A16}', '', ('git clone https://deploy:@@git.corp.internal/x.git', 'origin\thttps://oauth2:@@github.com/acme/x.git (fetch)', "wget 'ftp://backup:@@files.corp.internal/a.tgz'", 'proxy = http://jane:@@proxy.corp.internal:3128')),
    Kind('curl_user', '{P12}', '', ('curl -u admin:@ https://nexus.corp.internal/x', "curl -s --user 'svc:@' https://a.internal", 'curl -X POST -uadmin:@ http://127.0.0.1:8080/q')),
    Kind('netrc', '{A12}', '', ('machine git.corp.internal login jane password @', 'machine api.heroku.com\n  login jane\n  password @')),
    Kind('docker_auth', '{B28}', '', ('{"auths": {"registry.corp.internal": {"auth": "@"}}}', '    "https://index.docker.io/v1/": {\n      "auth": "@"\n    }')),
    Kind('htpasswd', '$apr1${A8}${A22}', '', ('jane:@', '# .htpasswd\nadmin:@')),
    Kind('bcrypt', '$2y$10${A53}', '', ('admin:@', '"password_hash": "@"')),
    Kind('kubeconfig', '{A200}', '', ('users:\n- name: admin\n  user:\n    client-key-data: @', '    token: @')),
    Kind('basic_header', '{A30}==', '', ('Authorization: Basic @', '-H "Authorization: Basic @"', '"Proxy-Authorization": "Basic @"')),
    Kind('bearer_header', '{A40}', '', ('Authorization: Bearer @', "-H 'authorization: Bearer @'", 'headers={"Authorization": f"Bearer @"}', '> Authorization: token @')),
    Kind('api_header', '{A32}', '', ('X-Api-Key: @', 'curl -H "X-Auth-Token: @" https://a.internal', "'Ocp-Apim-Subscription-Key': '@'", 'PRIVATE-TOKEN: @')),
    Kind('cookie', '{A36}', '', ('Set-Cookie: session=@; Path=/; HttpOnly', 'Cookie: theme=dark; sessionid=@; lang=en', "curl -b 'PHPSESSID=@' https://x.internal", 'connect.sid=@; Secure')),
    Kind('password', '{P12}', 'db password'),
    Kind('password_unquoted', '{A10}', 'password', ('spring.datasource.password=@', '  password: @', 'pass = @', 'PGPASSWORD=@ psql -h db', 'ADMIN_PASSWORD: @', '<password>@</password>', '<server><username>ci</username><password>@</password></server>', 'requirepass @', 'password="@"', 'rabbitmq_default_pass: @', 'DB_PWD_PROD=@')),
    Kind('connection_ado', '{A12}', '', (_CONN.format('Password', '@'), _CONN.format('Pwd', '@'))),
    Kind('connection_jdbc', '{A12}', '', ('jdbc:postgresql://db:5432/x?user=app&password=@&ssl=true', 'jdbc:sqlserver://sql1;user=sa;password=@;encrypt=true', 'jdbc:oracle:thin:scott/@@//db:1521/orcl')),
    Kind('prose_password', '{A10}', '', ('The password is @ and the port is 5432.', 'login with user jane and password @ please', 'I reset it, new password: @', 'pw: @', 'use token @ for now', 'the admin pass was @, change it', 'credentials: jane / @', 'username: jane, password: @')),
    Kind('shell_password', '{A11}', '', ('mysql -u root -p@ app < dump.sql', 'sshpass -p @ ssh ops@h1', "sshpass -p '@' scp a b:", 'redis-cli -h c1 -a @ ping', 'mongosh --username a --password @ h', "echo '@' | sudo -S apt update", 'openssl enc -aes-256-cbc -k @ -in a', 'mysqldump --password=@ app', 'smbclient //h/s -U jane%@', 'openssl rsa -passin pass:@ -in k', 'ldapsearch -x -D cn=a -w @')),
    Kind('seed_phrase', '{seed}', '', ('mnemonic: @', 'MNEMONIC="@"', 'seed phrase: @')),
    Kind('otp_secret', '{otp}', 'totp secret', ('otpauth://totp/acme:jane?secret=@&issuer=acme', 'TOTP_SECRET=@')),
    Kind('encryption_key', '{h64}', 'encryption key'),
    Kind('django_secret', '{P50}', 'secret key'),
    Kind('generic_token', '{A32}', 'auth token', ('https://api.corp.internal/v1/x?access_token=@&page=2', 'GET /hook?api_key=@ HTTP/1.1', 'wss://s.internal/?token=@')),
    Kind('made_up_vendor', 'acmepay_live_{A32}', '', ('using @ against prod', 'logged in with @')),
)
# fmt: on

# Contexts for a secret with a key: K SNAKE upper, k snake, c camel, d dashes, D dots, H Header-Case, w words.
CONTEXTS = (
    '<k> = "@"', "const <c> = '@';", "<K>=@", 'export <K>="@"', "  <k>: @", '  "<k>": "@",', '<d>: "@"',
    "<<c>>@</<c>>", '<add key="<c>" value="@" />', "<D>=@", "tool --<d> @ --verbose", "tool --<d>=@",
    "| <K> | @ |", 'level=info msg="config" <k>=@ user=ci', "Here is the <w>: @", "The <w> is @, keep it safe.",
    "X-<H>: @", 'self.<k> = os.getenv("<K>", "@")', ":<k> => '@',", '\t<c>: "@",', "docker run -e <K>=@ img",
    "ENV <K> @", 'process.env.<K> || "@"', "<K>: @", "<k> = @",
    "kubectl create secret generic s --from-literal=<d>=@", "- name: <K>\n  value: @", '{"name": "<K>", "value": "@"}',
    "<k> := `@`", 'os.environ["<K>"] = "@"',
)  # fmt: skip
# Other contexts than the rules were first written for. Faults of a general kind that they showed were mended since.
HELD_OUT = (
    "define('<K>', '@');", "SET <k> = '@';", 'config.<k> = "@"', "java -D<D>=@ -jar a.jar", "<K> -> @",
    "assert <k> == '@'", '<input type="hidden" name="<k>" value="@">', 'printf "%s" "@" | vault kv put s/x <k>=-',
    "echo '@' | gh secret set <K>", '#define <K> "@"', 'Client.new(<k>: "@")', 'client.set<C>("@")',
    'auth failed: bad <w> "@"', "my <w> (prod) = @", "<K>\n@", "* <w>: `@`", "heroku config:set <K>=@ -a app",
    'private static final String <K> = "@";', "setx <K> @", "<k>=@&grant_type=x", "let <c>: String = \"@\".into();",
    "**<w>**: @", "$env:<K> = '@'", "fly secrets set <K>=@", "--set auth.<c>=@", 'c = connect(host, <k>="@", port=1)',
)  # fmt: skip
# fmt: off
HELD_OUT_KINDS = (
    Kind('new_vendor_prefix', 'zephyr_sk_live_{A40}', 'zephyr key'),
    Kind('new_vendor_dash', 'orbit-{A44}', 'orbit api key'),
    Kind('new_vendor_bare', 'nimbus_pat_{h40}', '', ('running with @ now', 'found @ in the log')),
    Kind('service_password', '{P16}', 'ldap bind password'),
    Kind('webhook_secret', '{h40}', 'webhook signing secret'),
    Kind('signing_key', '{B43}=', 'jwt signing key'),
    Kind('license', '{U5}-{U5}-{U5}-{U5}', 'license key'),
    Kind('deploy_token', '{W30}', 'deploy token'),
    Kind('phrase_password', '{L6}-{L7}-{d3}!', 'admin password'),
)
# fmt: on


def fill(shape: str, rng: random.Random) -> str:
    """A value of this shape; every run of mixed characters holds a digit and a letter."""

    def run(match: re.Match[str]) -> str:
        letters, n = _SETS[match[1]], int(match[2])
        while True:
            made = "".join(rng.choice(letters) for _ in range(n))
            if (
                match[1] in "Ld"
                or n < 6
                or (re.search(r"\d", made) and re.search("[A-Za-z]", made))
            ):
                return made

    if shape == "{seed}":
        return " ".join(rng.choice(_SEED_WORDS) for _ in range(12))
    if shape == "{otp}":
        return "".join(rng.choice(string.ascii_uppercase + "234567") for _ in range(32))
    return _PART.sub(run, shape)


def name_key(template: str, key: str) -> str:
    """The context with the key's name in the spelling that it asks for."""
    words = key.split()
    camel = words[0] + "".join(w.title() for w in words[1:]) if words else ""
    spelled = {
        "K": "_".join(words).upper(),
        "k": "_".join(words),
        "c": camel,
        "C": camel[:1].upper() + camel[1:],
        "d": "-".join(words),
        "D": ".".join(words),
        "H": "-".join(w.title() for w in words),
        "w": key,
    }
    return re.sub(r"<([KkcCdDHw])>", lambda m: spelled[m[1]], template)


def plant(
    seed: int, count: int, carriers: Sequence[str], *, held_out: bool = False
) -> Iterator[Document]:
    """``count`` documents, all kinds in all forms in turn. ``carriers``: texts to hide them in."""
    rng = random.Random(seed)
    kinds = KINDS + HELD_OUT_KINDS if held_out else KINDS
    shared = HELD_OUT if held_out else CONTEXTS
    order = [(kind, form) for kind in kinds for form in FORMS]
    for n in range(count):
        if n % len(order) == 0:
            rng.shuffle(order)
        kind, form = order[n % len(order)]
        value = fill(kind.shape, rng)
        choices = (*kind.own, *(shared if kind.key else ()))
        # Half of a kind's documents stand in its own contexts, when it has some.
        pool = kind.own if kind.own and rng.random() < 0.5 else choices
        template = name_key(rng.choice(pool), kind.key)
        yield _hide(kind.name, form, template, value, carriers, rng)


def plant_again(doc: Document, carriers: Sequence[str], rng: random.Random) -> Document:
    """The value of a document once more, plain and with context."""
    kind = next(k for k in KINDS + HELD_OUT_KINDS if k.name == doc.kind)
    template = name_key(rng.choice([*kind.own, *(CONTEXTS if kind.key else ())]), kind.key)
    return _hide(kind.name, "plain", template, doc.value, carriers, rng)


def _hide(
    kind: str, form: str, template: str, value: str, carriers: Sequence[str], rng: random.Random
) -> Document:
    before, after = rng.choice(carriers), rng.choice(carriers)
    if form == "bare":
        head, tail = "", ""
    else:
        # A doubled @ is a value followed by the @ of an address.
        head, _, tail = template.partition("@")
    marks = [(c, False) for c in head] + [(c, True) for c in value] + [(c, False) for c in tail]
    snippet = _FORM.get(form, lambda m, _: m)(marks, rng)
    lead, trail = (" ", " ") if form in ("json", "json2", "url", "base64") else ("\n", "\n")
    if form == "bare":
        lead = trail = rng.choice(["\n", " "])
    if form in ("json", "json2"):
        marks = [(c, False) for c in before + "\n"] + snippet + [(c, False) for c in "\n" + after]
        for _ in range(1 if form == "json" else 2):
            marks = [(e, hit) for c, hit in marks for e in json.dumps(c, ensure_ascii=False)[1:-1]]
        marks = [(c, False) for c in '{"content":"'] + marks + [(c, False) for c in '"}']
    else:
        marks = [(c, False) for c in before + lead] + snippet + [(c, False) for c in trail + after]
    text = "".join(c for c, _ in marks)
    secret = tuple(i for i, (c, hit) in enumerate(marks) if hit and not c.isspace())
    return Document(kind, form, template, text, value, secret)


Marks = list[tuple[str, bool]]


def _number(marks: Marks, rng: random.Random) -> Marks:
    n = rng.randrange(1, 900)
    arrow = rng.choice(["\u2192", "\t"])
    out: Marks = [(c, False) for c in f"{n:6}{arrow}"]
    for c, hit in marks:
        out.append((c, hit))
        if c == "\n":
            n += 1
            out += [(x, False) for x in f"{n:6}{arrow}"]
    return out


def _diff(marks: Marks, rng: random.Random) -> Marks:
    sign = rng.choice("+-")
    out: Marks = [(c, False) for c in "@@ -1,3 +1,4 @@\n context\n" + sign]
    for c, hit in marks:
        out.append((c, hit))
        if c == "\n":
            out.append((sign, False))
    return out


def _base64(marks: Marks, rng: random.Random) -> Marks:
    raw = "".join(c for c, _ in marks).encode()
    hits = [hit for c, hit in marks for _ in c.encode()]
    out: Marks = [(c, False) for c in rng.choice(["echo ", "data: ", 'x = "', ""])]
    for i, c in enumerate(base64.b64encode(raw).decode()):
        at = i * 3 // 4
        out.append((c, c != "=" and at < len(hits) and hits[at]))
    return [*out, (" ", False)]


def _wrap(marks: Marks, rng: random.Random) -> Marks:
    """Broken every 60 to 100 columns, and so that one break falls inside the value."""
    width = rng.randrange(60, 101)
    hits = [i for i, (_, hit) in enumerate(marks) if hit]
    if any(c == "\n" for c, hit in marks if hit):
        return marks
    line = "".join(c for c, _ in marks[: hits[0]]).rfind("\n") + 1
    column = hits[len(hits) // 2] + rng.randrange(-1, 2) - line
    if line:
        # The name stands in a line of its own: nothing may come between, so the value's line is narrow.
        width = max(column, 1)
        filler: Marks = []
    else:
        # Filler before it puts the break where it belongs.
        space = (width - column) % width
        filler = [(rng.choice("abcdefgh lmn "), False) for _ in range(space - 1)]
        filler += [(" ", False)] * (space > 0)
    out: Marks = marks[:line]
    at = 0
    for mark in [*filler, *marks[line:]]:
        if at == width:
            out.append(("\n", False))
            at = 0
        out.append(mark)
        at = 0 if mark[0] == "\n" else at + 1
    return out


def _colour(marks: Marks, rng: random.Random) -> Marks:
    on = f"\x1b[{rng.choice(['31', '1;32', '38;5;208', '0;36'])}m"
    hits = [i for i, (_, hit) in enumerate(marks) if hit]
    inside = hits[0] + rng.randrange(2, len(hits) - 1) if rng.random() < 0.5 else -1
    out: Marks = []
    for i, mark in enumerate(marks):
        if i == hits[0]:
            out += [(c, False) for c in on]
        if i == inside:
            out += [(c, False) for c in "\x1b[0m" + on]
        out.append(mark)
        if i == hits[-1]:
            out += [(c, False) for c in "\x1b[0m"]
    return out


def _quote(marks: Marks, rng: random.Random) -> Marks:
    out: Marks = [
        (c, False) for c in rng.choice(["body=", "https://x.internal/?q=", "GET /cb?state="])
    ]
    for c, hit in marks:
        out += [(e, hit) for e in quote(c, safe="")]
    return out


_FORM = {
    "cat_n": _number,
    "diff": _diff,
    "base64": _base64,
    "wrapped": _wrap,
    "ansi": _colour,
    "url": _quote,
}


def make_carriers(rng: random.Random, count: int = 60) -> list[str]:
    """Made text of tool output and prose, for a machine without real transcripts."""
    lines = (
        "$ git log --oneline -3", "{h8} Fix the flaky test of the {w} queue", "src/{w}/main.go:{d3}: undefined: {w}",
        "PASS  tests/{w}_test.py ({d2} tests)", "I'll look at how {w} handles the retry and then run the tests.",
        "commit {h40}", "gt-{a5}: {w} is blocked by gt-{a5}", 'import {{ {w} }} from "./{w}";', "id: {h8}-{h4}-{h4}-{h4}-{h12}",
        "The {w} and the {w} share a lock, so the order matters here.", "    return {w}.get(key, default)",
    )  # fmt: skip
    out = []
    for _ in range(count):
        rows = [
            fill(re.sub(r"\{w\}", lambda _: rng.choice(_WORDS), rng.choice(lines)), rng)
            for _ in range(rng.randrange(4, 16))
        ]
        out.append("\n".join(rows))
    return out
