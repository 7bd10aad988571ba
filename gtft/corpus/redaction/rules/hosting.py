"""Source hosting, package registries, build and deploy services."""

from __future__ import annotations

from gtft.corpus.redaction.rule import Rule
from gtft.corpus.redaction.rules.guards import is_body, is_random, is_token, token

RULES: tuple[Rule, ...] = (
    token("github_pat", "gh[pousr]_", "A-Za-z0-9_", 30, "255"),
    token("github_fine_grained", "github_pat_", "A-Za-z0-9_", 22, "255"),
    token(
        "gitlab_token",
        "gl(?:pat|dt|rtr?|cbt|ptt|ft|imt|agent|soat|ffct|oas|wt)-",
        "A-Za-z0-9_.-",
        16,
        "300",
        guard=None,
    ),
    token("gitlab_token", "GR1348941", "A-Za-z0-9_-", 18, "40"),
    token("gitlab_token", "_gitlab_session=", "0-9a-f", 32, "32"),
    token("atlassian_token", "AT(?:BB|ATT3|CTT3)", "A-Za-z0-9_=+-", 24, "400"),
    token("npm_token", "npm_", "A-Za-z0-9", 30, "64"),
    Rule("npm_token", r"_authToken[\s=:]{1,6}\"?([\w+/=.-]{16,400})", ("_authToken",), is_body),
    token("pypi_token", "pypi-", "A-Za-z0-9_-", 50, "1000"),
    token("rubygems_token", "rubygems_", "0-9a-f", 32, "64"),
    token("crates_token", "cio", "A-Za-z0-9", 32, "40", guard=is_random),
    token("docker_token", "dckr_[po]at_", "A-Za-z0-9_-", 20, "80"),
    token("clojars_token", "CLOJARS_", "a-z0-9", 40, "80"),
    token("nuget_key", "oy2", "a-z0-9", 43, "43", guard=is_random),
    token("jfrog_token", "AKC[A-Za-z0-9]", "A-Za-z0-9", 65, "120"),
    token("jfrog_token", "cmVmdGtuO", "A-Za-z0-9", 50, "80"),
    Rule(
        "terraform_token",
        r"[A-Za-z0-9]{10,20}\.atlasv1\.[A-Za-z0-9_=-]{50,120}",
        (r"\.atlasv1\.",),
    ),
    token("vault_token", "hv[sbr]\\.", "A-Za-z0-9_-", 20, "500"),
    Rule(
        "vault_token",
        r"(?i)vault[^\n]{0,60}[\s\"'=:](s\.[A-Za-z0-9]{24})\b",
        (r"(?i)vault[^\n]{0,60}[\s\"'=:]s\.[A-Za-z0-9]{24}",),
        is_body,
    ),
    Rule("jenkins_token", r"11[0-9a-f]{32}", guard=is_token, not_before=r"\w", not_after=r"\w"),
    token("buildkite_token", "bk(?:ua|pt|ct|at)_", "A-Za-z0-9", 30, "80"),
    token("circleci_token", "CCI(?:PAT|PRJ)_", "A-Za-z0-9_", 30, "120"),
    token("netlify_token", "nf[poc]_", "A-Za-z0-9", 36, "60"),
    token("vercel_token", "(?:vercel|vc[kparie])_", "A-Za-z0-9", 24, "80", guard=is_random),
    token("sourcegraph_token", "sg[pd]_", "A-Za-z0-9_", 40, "80", guard=is_random),
    token("pulumi_token", "pul-", "0-9a-f", 40, "40"),
    token("prefect_token", "pn[ub]_", "A-Za-z0-9", 36, "36"),
    token("doppler_token", "dp\\.(?:pt|st|sa|ct|scim|audit)\\.", "A-Za-z0-9_.-", 40, "80"),
    token("onepassword_token", "ops_eyJ", "A-Za-z0-9_=-", 100, "1000"),
    token("infisical_token", "st\\.[0-9a-f]{8,}\\.", "0-9a-f.", 32, "120"),
    token("fly_token", "(?:FlyV1 |fm[12][ar]?_|fo1_)", "A-Za-z0-9_+/=,-", 30, "1000"),
    token("render_token", "rnd_", "A-Za-z0-9", 24, "60", guard=is_random),
    token("launchdarkly_key", "(?:sdk|api|mob)-", "0-9a-f-", 36, "36", guard=is_random),
    token("azure_devops_token", "[A-Za-z0-9]{52}JQQJ99", "A-Za-z0-9", 20, "40"),
    token("cargo_token", "crates_", "A-Za-z0-9", 30, "60", guard=is_random),
)
