//! The rules of `clusters.NAME.cache_job`.
//!
//! Invariant: pure; only the cluster can show whether the namespace and the claim exist.

use super::ConfigFindings;
use crate::world::CacheJob;
use std::path::Path;

pub(super) fn check(path: &str, job: &CacheJob, found: &mut ConfigFindings) {
    let at = |key: &str| format!("{path}.{key}");
    if !is_name(&job.namespace) {
        found.say(&at("namespace"), "is no name of a namespace", "name the one in which Jobs may be made");
    }
    if job.image.is_empty() || job.image.contains(char::is_whitespace) {
        found.say(
            &at("image"),
            "is no image",
            "write the image that deploy/Containerfile builds, with its registry and tag",
        );
    }
    match (&job.host_path, &job.claim) {
        (Some(_), Some(_)) => found.say(path, "has both `host_path` and `claim`", "keep the one that models lie in"),
        (None, None) => found.say(path, "names no place of models", "add `host_path: /models` or `claim: NAME`"),
        (None, Some(claim)) if !is_name(claim) => {
            found.say(&at("claim"), "is no name of a claim", "see `kubectl get pvc`")
        }
        _ => {}
    }
    for (key, folder) in [("host_path", &job.host_path), ("mount", &job.mount)] {
        if folder.as_deref().is_some_and(|folder| !is_folder(folder)) {
            let mend = "write the path of a folder such as /models, not `/` and nothing with `..`";
            found.say(&at(key), "is no absolute path of a folder for models", mend);
        }
    }
    let digits = |text: &str| text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).parse::<u64>().is_ok();
    if job.memory_limit.as_deref().is_some_and(|limit| !digits(limit)) {
        found.say(
            &at("memory_limit"),
            "is no amount of memory",
            "write one such as `400Gi`, or leave it out for no limit",
        );
    }
}

fn is_folder(path: &Path) -> bool {
    let up = path.components().any(|part| part == std::path::Component::ParentDir);
    path.is_absolute() && path.components().count() >= 2 && !up
}

fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    !text.is_empty() && text.len() <= 253 && text.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn each_slip_is_named_with_its_key() {
        let check = |job: &str| -> Vec<String> {
            let text = format!("clusters: {{ main: {{ cache_job: {job} }} }}");
            Config::parse("test", &text).unwrap().check().iter().map(ToString::to_string).collect()
        };
        assert_eq!(check("{ namespace: ns, image: 'r/n:1', host_path: /models }"), [""; 0]);
        assert_eq!(check("{ namespace: ns, image: 'r/n:1', claim: models, mount: /m, memory_limit: 400Gi }"), [""; 0]);
        for (job, words) in [
            ("{ image: 'r/n:1', host_path: /models }", "cache_job.namespace"),
            ("{ namespace: ns, host_path: /models }", "cache_job.image"),
            ("{ namespace: ns, image: i }", "names no place of models"),
            ("{ namespace: ns, image: i, host_path: /m, claim: c }", "has both"),
            ("{ namespace: ns, image: i, host_path: / }", "cache_job.host_path"),
            ("{ namespace: ns, image: i, claim: c, mount: /a/../b }", "cache_job.mount"),
            ("{ namespace: ns, image: i, claim: c, memory_limit: much }", "cache_job.memory_limit"),
        ] {
            let found = check(job);
            assert!(found.iter().any(|line| line.contains(words)), "{job}: {found:?}");
        }
    }
}
