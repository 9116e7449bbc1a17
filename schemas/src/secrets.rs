//! Shapes of secrets that redaction replaces by tokens.
//!
//! The recorder finds secrets by these shapes. The analyzer uses them to tell which forbidden patterns a redacted value
//! could have matched.

/// A kind of secret with a known shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretShape {
    /// Kind in the token, `⟦kind:…⟧`.
    pub kind: &'static str,
    /// Regular expression. A leading `\b` also stands for an escape before the secret. If the expression has a group, the
    /// group is the secret, else the complete match.
    pub expression: &'static str,
    /// Text that must precede the secret and is not part of it.
    pub lead: &'static str,
    /// Beginnings of the secret, one of which every secret of the kind has; empty if any text can be the secret.
    pub prefixes: &'static [&'static str],
    /// Invented secrets of the kind in its usual lengths. None of them is an example of a vendor's documentation, which a
    /// pattern could name.
    pub examples: &'static [&'static str],
}

const fn shape(
    kind: &'static str,
    expression: &'static str,
    lead: &'static str,
    prefixes: &'static [&'static str],
    examples: &'static [&'static str],
) -> SecretShape {
    SecretShape { kind, expression, lead, prefixes, examples }
}

/// Every shape. Of shapes that begin at the same byte the first one wins.
pub const SHAPES: [SecretShape; 13] = [
    shape(
        "private_key",
        r"(?s)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\z)",
        "",
        &["-----BEGIN "],
        &[
            "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\n-----END PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7\n-----END RSA PRIVATE KEY-----",
        ],
    ),
    shape(
        "anthropic_key",
        r"\bsk-ant-[A-Za-z0-9_\-]{12,}",
        "",
        &["sk-ant-"],
        &["sk-ant-api03-Example01Example02", "sk-ant-Example01Example02Example03Example04Example05"],
    ),
    shape(
        "openai_key",
        r"\bsk-[A-Za-z0-9_\-]{16,}",
        "",
        &["sk-"],
        &[
            "sk-Example01Example02",
            "sk-Example01Example02Example03Example04Example05Exa",
            "sk-proj-Example01Example02Example03Example04Example05",
        ],
    ),
    shape(
        "aws_key",
        r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
        "",
        &["AKIA", "ASIA"],
        &["AKIAQ7EXAMPLE3KEY9ZW", "ASIAQ7EXAMPLE3KEY9ZW"],
    ),
    shape(
        "github_token",
        r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})",
        "",
        &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"],
        &[
            "ghp_Example01Example02Example03Example04",
            "gho_Example01Example02Example03Example04",
            "ghs_Example01Example02Example03Example04",
            "github_pat_Example01Example02_Example03",
        ],
    ),
    shape(
        "slack_token",
        r"\bxox[abeoprs]-[A-Za-z0-9\-]{10,}",
        "",
        &["xoxa-", "xoxb-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-"],
        &["xoxb-0123456789-Example01", "xoxp-0123456789-Example01"],
    ),
    shape(
        "google_key",
        r"\bAIza[0-9A-Za-z_\-]{35}",
        "",
        &["AIza"],
        &["AIzaExample01Example02Example03Example0"],
    ),
    shape(
        "stripe_key",
        r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}",
        "",
        &["sk_live_", "sk_test_", "rk_live_", "rk_test_"],
        &["sk_live_Example01Example02Example03", "sk_test_Example01Example02Example03"],
    ),
    shape("gitlab_token", r"\bglpat-[A-Za-z0-9_\-]{20,}", "", &["glpat-"], &["glpat-Example01Example02Exam"]),
    shape(
        "huggingface_token",
        r"\bhf_[A-Za-z0-9]{30,}",
        "",
        &["hf_"],
        &["hf_Example01Example02Example03Example0"],
    ),
    shape(
        "jwt",
        r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}",
        "",
        &["eyJ"],
        &["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJleGFtcGxlIn0.Example01Example02"],
    ),
    shape(
        "bearer",
        r"\b(?i:bearer)[ \t]{1,4}([A-Za-z0-9._~+/=\-]{16,})",
        "Bearer ",
        &[],
        &["Example01.Example02-Example03"],
    ),
    shape(
        "basic_auth",
        r"\b(?i:basic)[ \t]{1,4}([A-Za-z0-9+/]{16,}={0,2})",
        "Basic ",
        &[],
        &["RXhhbXBsZTAxRXhhbXBsZTAy"],
    ),
];
