"""Passwords on command lines and in calls: flags, ``-u user:pw``, what is piped into a login, SQL users."""

from __future__ import annotations

from gtft.corpus.redaction.rule import Rule
from gtft.corpus.redaction.rules.guards import (
    is_assigned_token,
    is_command_password,
    is_password,
    is_quoted_password,
    is_spoken_password,
    is_spoken_token,
    is_token,
)

_FLAGS = r"pass(?:word|wd|phrase|code)?|pwd|(?:[a-z0-9]{1,20}-){0,3}(?:password|passwd|passphrase|secret|token|api-?key|key|auth|credentials?|pat|auth-?token|access-?key|secret-?key|license)|storepass|keypass|srcstorepass|deststorepass"
RULES: tuple[Rule, ...] = (
    Rule(
        "command_password",
        r"\b(?:curl|wget|http|https|httpie|xh|az|ab|wrk|lftp|smbclient|rpcclient|ldap\w+|snmp\w+)\b[^\n]{0,400}?\s(?:-u|-U|--user|--proxy-user|--creds|-a|--auth|-A)[ =]?\\{0,3}[\"']?"
        r"[^\s:%\"']{0,100}[:%]([^\s\"'\\]{2,})",
        (
            r"\s(?:-u|-U|--user|--proxy-user|--creds|-a|--auth|-A)[ =]?\\{0,3}[\"']?[^\s:%\"']{0,100}[:%][^\s\"'\\]{2}",
        ),
        is_command_password,
        context=True,
    ),
    Rule(
        "command_password",
        r"\bcurl\b[^\n]{0,400}?\s(?:-u|--user)[ =]?\\{0,3}[\"']?([\w.-]{16,300}):?[\"'\s]",
        (r"\s(?:-u|--user)[ =]?\\{0,3}[\"']?[\w.-]{16}",),
        is_token,
        context=True,
    ),
    Rule(
        "command_password",
        rf"(?i)\s--?(?:{_FLAGS})(?:[ =]|\s\\\n\s*)\\{{0,3}}[\"']?([^\s\"'\\<>|;&()]{{5,}})",
        (rf"(?i)\s--?(?:{_FLAGS})(?:[ =]|\s\\\n\s{{0,8}})\\{{0,3}}[\"']?[^\s\"'\\<>|;&()]{{5}}",),
        is_password,
        context=True,
    ),
    Rule(
        "command_password",
        r"\b(?:mysql(?:dump|admin|import|check|show|slap)?|mariadb(?:-\w{1,12})?)\b[^\n|;]{0,300}?\s-p\\{0,3}[\"']?([^\s\"'\\<>|;&-][^\s\"'\\<>|;&]{3,})",
        (r"(?:mysql|mariadb)[^\n|;]{0,300}\s-p[^\s-]",),
        is_command_password,
        context=True,
    ),
    Rule(
        "command_password",
        r"\b(?:sshpass|mongo(?:sh|dump|restore|export|import)?|plink|putty|pscp|"
        r"7z|7za|unrar|rar|zip|unzip|(?:docker|podman|oc|az|registry|skopeo|crane|oras|nomad|argocd|cf|ibmcloud|doctl|ecr)\s(?:\S{1,40}\s)?login|xfreerdp|rdesktop|sqlcmd|bcp|isql|cqlsh|clickhouse-client)\b"
        r"[^\n|;]{0,300}?\s(?:-p\s?|-P\s?|-pw\s|/p:|--password[= ])\\{0,3}[\"']?([^\s\"'\\<>|;&-][^\s\"'\\<>|;&]{3,})",
        (
            r"(?:sshpass|mongo|plink|putty|pscp|7za?|rar|zip|login|xfreerdp|rdesktop|sqlcmd|bcp|isql|cqlsh|clickhouse)[^\n|;]{0,300}\s(?:-p|-P\s|-pw\s|/p:|--password[= ])",
        ),
        is_command_password,
        context=True,
    ),
    Rule(
        "command_password",
        r"\b(?:redis-cli|valkey-cli|keydb-cli)\b[^\n|;]{0,200}?\s(?:-a|--pass)\s+\\{0,3}[\"']?([^\s\"'\\<>|;&-][^\s\"'\\<>|;&]{2,})",
        (r"(?:redis|valkey|keydb)-cli[^\n|;]{0,200}\s(?:-a|--pass)\s",),
        is_command_password,
        context=True,
    ),
    Rule(
        "command_password",
        r"\b(?:ldap(?:search|modify|add|delete|passwd|whoami)|ipmitool|snmpwalk|kinit|net use|psexec|winexe|crackmapexec|nxc|impacket-\w+)\b[^\n|;]{0,300}?\s(?:-w|-P|-p)\s+\\{0,3}[\"']?([^\s\"'\\<>|;&-][^\s\"'\\<>|;&]{3,})",
        (
            r"(?:ldap[a-z]{3,8}|ipmitool|snmpwalk|kinit|net use|psexec|winexe|crackmapexec|nxc|impacket-\w{2,12})[^\n|;]{0,300}\s(?:-w|-P|-p)\s",
        ),
        is_command_password,
        context=True,
    ),
    Rule(
        "command_password",
        r"\bopenssl\b[^\n]{0,300}?\s(?:-k\s+|-pass(?:in|out)?\s+(?:pass:)?|-password\s+(?:pass:)?)\\{0,3}[\"']?(?:pass:)?([^\s\"'\\<>|;&-][^\s\"'\\<>|;&]{2,})",
        (r"openssl[^\n]{0,300}\s(?:-k\s|-pass(?:in|out|word)?\s)",),
        is_command_password,
        context=True,
    ),
    Rule(
        "command_password",
        r"(?:echo|printf)\s(?:-n\s|-e\s|['\"]?%s(?:\\n)?['\"]?\s)?\\{0,3}[\"']?([^\s\"'\\<>|$`][^\s\"'\\<>|`]{3,})(?:\\n)?\\{0,3}[\"']?\s{0,4}\|\s{0,4}"
        r"(?:sudo\s(?:-\w+\s){0,2}-S|[^\n|]{0,80}(?:--password-stdin|--with-token|--stdin|secret|passwd|chpasswd|vault\s|login|kv put|gh auth|wrangler))",
        (
            r"(?:echo|printf)\s[^\n|]{4,}\|\s{0,4}(?:sudo|[^\n|]{0,80}(?:--password-stdin|--with-token|--stdin|secret|passwd|vault|login|kv put|gh auth|wrangler))",
        ),
        is_command_password,
        context=True,
    ),
    Rule(
        "command_password",
        r"\b(?:requirepass|masterauth|storePassword|keyPassword|sentinel auth-pass \S{1,60})\s+[\"']?([^\s\"'\\<>|;&]{4,})",
        (r"(?:requirepass|masterauth|(?:store|key)Password|auth-pass)\s",),
        is_command_password,
        context=True,
    ),
    Rule(
        "command_password",
        r"\b(?:net\s+user|useradd|usermod|smbpasswd|htpasswd\s+-\w*b\w*\s+\S+)\s+[\w.-]{1,40}\s+(?:-p\s+)?\\{0,3}[\"']?([^\s\"'\\<>|;&/-][^\s\"'\\<>|;&]{3,100})",
        (r"(?:net\s{1,4}user|useradd|usermod|smbpasswd|htpasswd\s{1,4}-\w{0,8}b)",),
        is_password,
        context=True,
    ),
    Rule(
        "command_password",
        r"(?i)\bIDENTIFIED\s+(?:WITH\s+\S{1,40}\s+)?(?:BY|AS)\s+(?:PASSWORD\s+)?\\{0,3}['\"]([^'\"\n]{3,200})|\b(?:CREATE|ALTER)\s+(?:USER|ROLE|LOGIN)\b[^\n;]{0,200}?\bPASSWORD\s*=?\s*N?\\{0,3}'([^'\n]{3,})",
        (
            r"(?i)IDENTIFIED\s{1,4}(?:WITH|BY|AS)",
            r"(?i)(?:CREATE|ALTER)\s{1,4}(?:USER|ROLE|LOGIN)[^\n;]{0,200}PASSWORD",
        ),
        is_command_password,
        context=True,
    ),
    Rule(
        "command_password",
        r"\b(?:vault|flyctl auth|fly auth|railway|vercel|netlify|npm|gh auth|huggingface-cli|hf auth|wandb|doppler|infisical|op)\s+login\s+(?:--?[\w-]+(?:=\S+)?\s+){0,4}([\w.-]{16,})",
        (
            r"(?:vault|auth|railway|vercel|netlify|npm|huggingface-cli|wandb|doppler|infisical|op)\s{1,4}login\s",
        ),
        is_assigned_token,
        context=True,
    ),
    Rule(
        # Routers and switches.
        "command_password",
        r"\b(?:password|secret|key-string|key)\s+[05789]\s+(\S{8,})|\bsnmp-server\s+community\s+(\S{6,})|\bset\s+community\s+(\S{6,})",
        (
            r"(?:password|secret|key-string|key)\s{1,4}[05789]\s{1,4}\S{8}",
            r"snmp-server\s{1,4}community\s",
        ),
        is_spoken_password,
        context=True,
    ),
    Rule(
        # auth=("user", "…"), HTTPBasicAuth('user', '…'), server.login("user", "…")
        "call_password",
        r"(?i)(?:\bauth\s?=\s?\(|basic_?auth\(|\.login\(|\.authenticate\(|credentials?\()\s{0,4}\\{0,3}[\"'][^\"'\s]{1,60}[\"']\s{0,4},\s{0,4}\\{0,3}[\"']([^\"'\s\\]{5,})",
        (
            r"(?i)(?:auth\s?=\s?\(|basic_?auth\(|\.login\(|\.authenticate\(|credentials?\()\s{0,4}\\{0,3}[\"'][^\"'\s]{1,60}[\"']\s{0,4},",
        ),
        is_quoted_password,
        context=True,
    ),
    Rule(
        "command_password",
        r"\b(?:sqlplus|expdp|impdp|rman|sqlldr)\s(?:-\S{1,10}\s){0,3}\\{0,3}[\"']?\w{1,40}/([^@\s\"'/]{3,})(?:@|\s|$)",
        (r"(?:sqlplus|expdp|impdp|rman|sqlldr)\s",),
        is_command_password,
        context=True,
    ),
    Rule(
        "command_password",
        r"(?i)\bnet\s{1,4}use\b[^\n]{0,120}?/user:\S{1,60}\s{1,4}([^\s\"'/]{4,})",
        (r"(?i)net\s{1,4}use\b[^\n]{0,120}/user:",),
        is_command_password,
        context=True,
    ),
    Rule(
        "command_password",
        r"\b(?:secretsmanager|ssm\s+put-parameter|keyvault\s+secret|secrets?\s+(?:set|create|put|add))\b[^\n]{0,300}?\s--(?:secret-string|secret-value|value|body|data)[ =]\\{0,3}[\"']?([^\s\"'\\<>|;&]{6,})",
        (r"\s--(?:secret-string|secret-value|value|body|data)[ =]\\{0,3}[\"']?[^\s\"'\\<>|;&]{6}",),
        is_command_password,
        context=True,
    ),
    Rule(
        "command_password",
        r"\b(?:add-authtoken|authtoken|set-token|add-token)\s{1,4}[\"']?([\w.-]{16,})|(?m:^|\s)AUTH\s{1,4}(?:(?:PLAIN|LOGIN|XOAUTH2)\s{1,4})?([\w+/=.-]{8,})",
        (r"(?:add-authtoken|authtoken|set-token|add-token)\s", r"(?:^|\s)AUTH\s{1,4}[\w+/=.-]{5}"),
        is_spoken_token,
        context=True,
    ),
    Rule(
        "command_password",
        r"(?m)^(?:[\w.*]{1,8} LOGIN|PASS|USER \S{1,40}\s{1,4}PASS) (?:\"?[\w.@-]{1,60}\"? )?\"?([^\s\"]{6,})",
        (r"(?:\sLOGIN|PASS) \S",),
        is_spoken_password,
        context=True,
    ),
    Rule(
        # .pgpass: host:port:database:user:password
        "pgpass_password",
        r"(?m)^\s{0,8}[\w.*-]{1,100}:(?:\d{2,5}|\*):[\w.*-]{1,63}:[\w.*-]{1,63}:(\S{4,})\s{0,4}$",
        (r"[\w.*-]:(?:\d{2,5}|\*):[\w.*-]{1,63}:[\w.*-]{1,63}:\S{4}",),
        is_password,
        context=True,
        lines=True,
    ),
)
