//! `${NAME}` in texts of configuration files: secrets stay out of the files. Where the values come from is the caller's.

/// Replaces each `${NAME}` by the variable's value, which `env` finds.
///
/// # Errors
/// A variable is not known, or a `${` is not closed.
pub fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) = after.split_once('}').ok_or_else(|| "`${` is not closed by `}`".to_owned())?;
        let value = env(name).ok_or_else(|| format!("the environment has no variable {name}; set it"))?;
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
    fn variables_are_replaced_and_unknown_ones_named() {
        let env = |name: &str| (name == "K").then(|| "v".to_owned());
        assert_eq!(expand("a ${K}!", &env).expect("known"), "a v!");
        assert!(expand("${NO}", &env).expect_err("unknown").contains("NO"));
        assert!(expand("${K", &env).is_err());
    }
}
