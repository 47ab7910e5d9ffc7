//! "Did you mean": the nearest of some names.
//!
//! Invariant: a suggestion is offered only when it is closer than a third of the word.

/// The nearest candidate to a misspelt word, if one is near enough.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Long words are not misspellings of ours; the bound keeps hostile text cheap.
    if word.chars().count() > 64 {
        return None;
    }
    let most = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(word, candidate), candidate))
        .filter(|(far, _)| *far <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        let names = ["k8s::cordon", "k8s::uncordon", "k8s::drain"];
        assert_eq!(nearest("k8s::cordn", names), Some("k8s::cordon"));
        assert_eq!(nearest("k8s::crodon", names), Some("k8s::cordon"));
        assert_eq!(nearest("prom::value", names), None);
        assert_eq!(nearest("nod", ["node", "gpu"]), Some("node"));
    }
}
