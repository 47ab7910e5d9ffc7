//! The profiles of the GPU families, for planning without the machine. NVML's description of a real GPU overrides it.
//!
//! Invariant: a table is used only for a product that is named here; the layout of an unknown one is read from NVML,
//! never guessed.

use crate::model::MigProfile;

/// Names of 1g, 1g with double memory, 2g, 3g, 4g, 7g in a family of eight slots and seven slices.
type ProfileNames = [&'static str; 6];

/// A part of the product's name, as GPU feature discovery and NVML write it, and the names; the first that matches.
const SEVEN: [(&[&str], ProfileNames); 10] = [
    (&["A100", "40GB"], ["1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"]),
    (&["A100", "80GB"], EIGHTY),
    (&["H100", "NVL"], ["1g.12gb", "1g.24gb", "2g.24gb", "3g.47gb", "4g.47gb", "7g.94gb"]),
    (&["H100", "96GB"], NINETY_SIX),
    (&["GH200", "96GB"], NINETY_SIX),
    (&["H100"], EIGHTY),
    (&["H200"], ["1g.18gb", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"]),
    // The driver decides between 1g.23gb and 1g.24gb; offline the older name.
    (&["GB200"], ["1g.23gb", "1g.47gb", "2g.47gb", "3g.93gb", "4g.93gb", "7g.186gb"]),
    (&["B200"], ["1g.23gb", "1g.45gb", "2g.45gb", "3g.90gb", "4g.90gb", "7g.180gb"]),
    (&["B300"], ["1g.34gb", "1g.67gb", "2g.67gb", "3g.135gb", "4g.135gb", "7g.269gb"]),
];
const EIGHTY: ProfileNames = ["1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"];
const NINETY_SIX: ProfileNames = ["1g.12gb", "1g.24gb", "2g.24gb", "3g.48gb", "4g.48gb", "7g.96gb"];

/// The profiles of a product such as `NVIDIA-H100-80GB-HBM3`; none for one without a table.
pub fn profiles_of_product(product: &str) -> Option<Vec<MigProfile>> {
    // GH200's plain product name has no HBM; and "H200" is a part of "GH200".
    let has = |parts: &[&str]| parts.iter().all(|part| product.contains(part));
    if has(&["GH200"]) && !has(&["GH200", "96GB"]) {
        return None;
    }
    if let Some((_, names)) = SEVEN.iter().find(|(parts, _)| has(parts)) {
        return Some(seven(names));
    }
    if has(&["A30"]) {
        return Some(a30());
    }
    has(&["RTX", "PRO", "6000"]).then(rtx_6000)
}

fn profile(name: &str, id: u32, slices: u32, width: u32, starts: &[u32], most: u32) -> MigProfile {
    MigProfile { name: name.to_owned(), id, slices, width, starts: starts.to_vec(), most }
}

fn seven(names: &ProfileNames) -> Vec<MigProfile> {
    let [one, double, two, three, four, whole] = *names;
    const EACH: [u32; 7] = [0, 1, 2, 3, 4, 5, 6];
    vec![
        profile(one, 19, 1, 1, &EACH, 7),
        profile(&format!("{one}+me"), 20, 1, 1, &EACH, 1),
        profile(double, 15, 1, 2, &[0, 2, 4, 6], 4),
        profile(two, 14, 2, 2, &[0, 2, 4], 3),
        profile(three, 9, 3, 4, &[0, 4], 2),
        profile(four, 5, 4, 4, &[0], 1),
        profile(whole, 0, 7, 8, &[0], 1),
    ]
}

fn a30() -> Vec<MigProfile> {
    vec![
        profile("1g.6gb", 14, 1, 1, &[0, 1, 2, 3], 4),
        profile("1g.6gb+me", 21, 1, 1, &[0, 1, 2, 3], 1),
        profile("2g.12gb", 5, 2, 2, &[0, 2], 2),
        profile("2g.12gb+me", 6, 2, 2, &[0, 2], 1),
        profile("4g.24gb", 0, 4, 4, &[0], 1),
    ]
}

fn rtx_6000() -> Vec<MigProfile> {
    vec![
        profile("1g.24gb", 14, 1, 3, &[0, 3, 6, 9], 4),
        profile("2g.48gb", 5, 2, 6, &[0, 6], 2),
        profile("4g.96gb", 0, 4, 12, &[0], 1),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::MigGeometry;
    use super::*;
    use crate::model::MigPlace;
    use std::collections::BTreeSet;

    /// The reference's model leaves out `+me`, which shares 1g's places.
    fn plain(product: &str) -> MigGeometry {
        let mut profiles = profiles_of_product(product).unwrap();
        profiles.retain(|profile| !profile.name.contains('+'));
        MigGeometry::new(profiles).unwrap()
    }

    #[test]
    fn the_tables_give_the_numbers_of_layouts_that_were_computed_for_the_hardware() {
        let geometry = plain("NVIDIA-H100-80GB-HBM3");
        let layouts = geometry.layouts();
        assert_eq!(layouts.len(), 723);
        let counts = |layout: &Vec<MigPlace>| {
            let mut names: Vec<String> = layout.iter().map(|place| place.profile.clone()).collect();
            names.sort();
            names
        };
        assert_eq!(layouts.iter().map(counts).collect::<BTreeSet<_>>().len(), 78);
        let sets: Vec<BTreeSet<&MigPlace>> = layouts.iter().map(|layout| layout.iter().collect()).collect();
        let is_full =
            |at: &usize| !sets.iter().any(|other| other.len() > sets[*at].len() && other.is_superset(&sets[*at]));
        let full: BTreeSet<_> = (0..layouts.len()).filter(is_full).map(|at| counts(&layouts[at])).collect();
        assert_eq!(full.len(), 38, "geometries of layouts that nothing can be added to");
    }

    #[test]
    fn placement_alone_blocks_as_often_as_was_computed() {
        let geometry = plain("NVIDIA-H100-80GB-HBM3");
        let layouts = geometry.layouts();
        for (name, blocked, roomy) in [("2g.20gb", 249, 539), ("3g.40gb", 182, 238), ("4g.40gb", 150, 169)] {
            let wanted = geometry.profiles().iter().find(|profile| profile.name == name).unwrap();
            let sum = |layout: &[MigPlace], of: fn(&MigProfile) -> u32| -> u32 {
                let size =
                    |place: &MigPlace| geometry.profiles().iter().find(|p| p.name == place.profile).map_or(0, of);
                layout.iter().map(size).sum()
            };
            let has_room = |layout: &&Vec<MigPlace>| {
                sum(layout, |p| p.width) + wanted.width <= 8 && sum(layout, |p| p.slices) + wanted.slices <= 7
            };
            let fits = |layout: &&Vec<MigPlace>| {
                let place = |start: &u32| MigPlace { profile: name.to_owned(), start: *start };
                wanted.starts.iter().any(|start| geometry.fits(layout, &place(start)))
            };
            let with_room: Vec<&Vec<MigPlace>> = layouts.iter().filter(has_room).collect();
            let without_place = with_room.iter().filter(|layout| !fits(layout)).count();
            assert_eq!((without_place, with_room.len()), (blocked, roomy), "{name}");
        }
    }

    #[test]
    fn products_are_known_by_the_names_that_drivers_give_them() {
        let first = |product: &str| profiles_of_product(product).map(|profiles| profiles[0].name.clone());
        for (product, name) in [
            ("NVIDIA-A100-SXM4-40GB", Some("1g.5gb")),
            ("NVIDIA A100-SXM4-80GB", Some("1g.10gb")),
            ("NVIDIA-H100-80GB-HBM3", Some("1g.10gb")),
            ("NVIDIA-H100-NVL", Some("1g.12gb")),
            ("NVIDIA-H200", Some("1g.18gb")),
            ("NVIDIA-GH200-480GB", None),
            ("NVIDIA-B200", Some("1g.23gb")),
            ("NVIDIA-GB200", Some("1g.23gb")),
            ("NVIDIA-A30", Some("1g.6gb")),
            ("NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition", Some("1g.24gb")),
            ("Tesla-T4", None),
        ] {
            assert_eq!(first(product).as_deref(), name, "{product}");
        }
    }
}
