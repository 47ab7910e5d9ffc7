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
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(far, _)| *far <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1; b.len() + 1];
        for j in 0..b.len() {
            let replace = last[j] + usize::from(a[i] != b[j]);
            row[j + 1] = replace.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = last;
        last = row;
    }
    last[b.len()]
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
