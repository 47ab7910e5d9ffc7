//! The name that was probably meant.
//!
//! Invariant: a suggestion is one of the candidates, and near enough that it reads like a slip of the hand.

/// The nearest candidate, as ` (did you mean `x`?)`, or nothing.
pub(super) fn did_you_mean<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    let far = name.chars().count() / 3 + 1;
    candidates
        .into_iter()
        .map(|candidate| (strsim::levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= far)
        .min()
        .map_or_else(String::new, |(_, candidate)| format!(" (did you mean `{candidate}`?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_put_right_and_a_stranger_is_not() {
        let known = ["node-not-ready", "gpu-fell-off-the-bus"];
        assert_eq!(did_you_mean("node-notready", known), " (did you mean `node-not-ready`?)");
        assert_eq!(did_you_mean("coffee", known), "");
    }
}
