//! Expansion of `${NAME}` in configuration files, which keeps secrets out of the files. The caller supplies the values.

/// Replaces each `${NAME}` by the value that `env` returns.
///
/// # Errors
/// `env` does not know a variable, or a `${` has no `}`.
pub fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) = after.split_once('}').ok_or_else(|| "`${` has no closing `}`".to_owned())?;
        let value = env(name).ok_or_else(|| format!("the environment variable {name} is not set; set it"))?;
        out.push_str(before);
        out.push_str(&value);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_and_unknown_ones_named() {
        let env = |name: &str| (name == "K").then(|| "v".to_owned());
        assert_eq!(expand("a ${K}!", &env).expect("known"), "a v!");
        assert!(expand("${NO}", &env).expect_err("unknown").contains("NO"));
        assert!(expand("${K", &env).is_err());
    }
}
