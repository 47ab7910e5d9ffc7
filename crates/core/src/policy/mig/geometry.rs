//! The instances that fit on a GPU: the places of its profiles as bit masks of memory slots.
//!
//! Invariant: two instances never share a slot, and together they have no more compute slices than the GPU.

use crate::model::{MigPlace, MigProfile};

/// One legal place of one profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProfilePlacement {
    /// Index into `profiles`.
    pub profile: usize,
    pub start: u32,
    pub mask: u16,
    pub slices: u32,
}

/// A GPU's profiles and places, made for searching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigGeometry {
    profiles: Vec<MigProfile>,
    slots: u32,
    slices: u32,
    /// Ordered by start.
    places: Vec<ProfilePlacement>,
    /// For each mask of taken slots: how many places are still legal.
    freedom: Vec<u16>,
}

impl MigGeometry {
    /// The geometry of a GPU with these profiles.
    ///
    /// # Errors
    ///
    /// Fails when the profiles span no or more than 16 memory slots, or one has no width or no slices; the message
    /// names it.
    pub fn new(profiles: Vec<MigProfile>) -> Result<MigGeometry, String> {
        let end =
            |profile: &MigProfile| profile.starts.iter().max().map_or(0, |start| start.saturating_add(profile.width));
        let slots = profiles.iter().map(end).max().unwrap_or(0);
        if !(1..=16).contains(&slots) {
            return Err(format!("its profiles span {slots} memory slots; 1 to 16 are understood"));
        }
        let slices = profiles.iter().map(|profile| profile.slices).max().unwrap_or(0);
        let mut places = Vec::new();
        for (at, profile) in profiles.iter().enumerate() {
            if profile.width == 0 || profile.slices == 0 {
                return Err(format!("profile {} is of no size", profile.name));
            }
            for start in &profile.starts {
                // 32 bits: a width of 16 would shift the mask out.
                let mask = (((1u32 << profile.width) - 1) << start) as u16;
                places.push(ProfilePlacement { profile: at, start: *start, mask, slices: profile.slices });
            }
        }
        places.sort_by_key(|place| (place.start, place.profile));
        let free = |mask: u16| places.iter().filter(|place| place.mask & mask == 0).count();
        let freedom = (0..1u32 << slots).map(|mask| u16::try_from(free(mask as u16)).unwrap_or(u16::MAX)).collect();
        Ok(MigGeometry { profiles, slots, slices, places, freedom })
    }

    /// Of a GPU that offers nothing.
    pub fn none() -> MigGeometry {
        MigGeometry { profiles: Vec::new(), slots: 0, slices: 0, places: Vec::new(), freedom: vec![0] }
    }

    /// The profiles that the geometry was made from.
    pub fn profiles(&self) -> &[MigProfile] {
        &self.profiles
    }

    /// Memory slots.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// How many places are legal beside these, whatever they are for.
    pub fn freedom(&self, taken: &[MigPlace]) -> Option<u32> {
        let mask = taken.iter().map(|place| self.find(place).map(|found| found.mask)).sum::<Option<u16>>()?;
        Some(u32::from(self.freedom_of(mask)))
    }

    /// Whether this place is free beside those taken.
    pub fn fits(&self, taken: &[MigPlace], place: &MigPlace) -> bool {
        let Some(found) = self.find(place) else { return false };
        let others: Option<Vec<ProfilePlacement>> = taken.iter().map(|other| self.find(other)).collect();
        let Some(others) = others else { return false };
        let slices: u32 = others.iter().map(|other| other.slices).sum();
        let same = others.iter().filter(|other| other.profile == found.profile).count();
        others.iter().all(|other| other.mask & found.mask == 0)
            && slices + found.slices <= self.slices
            && (same as u32) < self.profiles[found.profile].most
    }

    /// Every legal layout, the empty one among them: sets of places in order of their starts.
    pub fn layouts(&self) -> Vec<Vec<MigPlace>> {
        let mut all = Vec::new();
        self.extend_layout(&mut Vec::new(), 0, &mut all);
        all
    }

    fn extend_layout(&self, now: &mut Vec<MigPlace>, from: usize, all: &mut Vec<Vec<MigPlace>>) {
        all.push(now.clone());
        for at in from..self.places.len() {
            let place = self.named(self.places[at]);
            if self.fits(now, &place) {
                now.push(place);
                self.extend_layout(now, at + 1, all);
                now.pop();
            }
        }
    }

    pub(super) fn find(&self, place: &MigPlace) -> Option<ProfilePlacement> {
        let named = |found: &&ProfilePlacement| {
            found.start == place.start && self.profiles[found.profile].name == place.profile
        };
        self.places.iter().find(named).copied()
    }

    pub(super) fn named(&self, place: ProfilePlacement) -> MigPlace {
        MigPlace { profile: self.profiles[place.profile].name.clone(), start: place.start }
    }

    pub(super) fn places(&self) -> &[ProfilePlacement] {
        &self.places
    }

    pub(super) fn slices(&self) -> u32 {
        self.slices
    }

    pub(super) fn freedom_of(&self, mask: u16) -> u16 {
        self.freedom.get(usize::from(mask)).copied().unwrap_or(0)
    }
}
