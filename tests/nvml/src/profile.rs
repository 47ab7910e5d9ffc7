//! What the imitated GPUs are: names, memory, links, temperatures, and the MIG profiles with their placements.

/// One way to cut a GPU.
#[derive(Debug)]
pub struct Profile {
    /// `NVML_GPU_INSTANCE_PROFILE_*`: what `GetGpuInstanceProfileInfo` is asked with.
    pub index: u32,
    /// What `nvidia-smi mig -cgi` calls it, and every other call.
    pub id: u32,
    pub slices: u32,
    /// Memory slots that it takes, and where it may begin.
    pub width: u32,
    pub starts: &'static [u32],
    pub at_most: u32,
    pub memory_mib: u64,
    pub name: &'static str,
    pub media: bool,
}

/// One GPU product.
#[derive(Debug)]
pub struct Model {
    pub word: &'static str,
    pub name: &'static str,
    pub memory_mib: u64,
    /// Streaming multiprocessors of one compute slice.
    pub slice_sms: u32,
    pub links: u32,
    pub pcie_gen: u32,
    /// GPU instances come and go with the mode, but the mode itself needs a reset (A100).
    pub mode_needs_reset: bool,
    /// Absolute limits: slowdown, shutdown, memory's maximum, GPU's maximum.
    pub limits: [u32; 4],
    /// Offsets of T.Limit (shutdown, slowdown, memory, GPU), where the product has them.
    pub tlimit: Option<[i32; 4]>,
    /// NVLink 5: counters by `scopeId`.
    pub nvlink5: bool,
    pub fabric: bool,
    pub profiles: &'static [Profile],
}

pub const SLOTS: u32 = 8;
pub const COMPUTE_SLICES: u32 = 7;

const fn one(index: u32, id: u32, memory_mib: u64, name: &'static str, at_most: u32, media: bool) -> Profile {
    Profile { index, id, slices: 1, width: 1, starts: &[0, 1, 2, 3, 4, 5, 6], at_most, memory_mib, name, media }
}

macro_rules! profiles {
    ($m1:literal $n1:literal, $me:literal, $m1d:literal $n1d:literal, $m2:literal $n2:literal,
     $m3:literal $n3:literal, $m4:literal $n4:literal, $m7:literal $n7:literal) => {
        &[
            one(0, 19, $m1, $n1, 7, false),
            one(7, 20, $m1, $me, 1, true),
            Profile {
                index: 9,
                id: 15,
                slices: 1,
                width: 2,
                starts: &[0, 2, 4, 6],
                at_most: 4,
                memory_mib: $m1d,
                name: $n1d,
                media: false,
            },
            Profile {
                index: 1,
                id: 14,
                slices: 2,
                width: 2,
                starts: &[0, 2, 4],
                at_most: 3,
                memory_mib: $m2,
                name: $n2,
                media: false,
            },
            Profile {
                index: 2,
                id: 9,
                slices: 3,
                width: 4,
                starts: &[0, 4],
                at_most: 2,
                memory_mib: $m3,
                name: $n3,
                media: false,
            },
            Profile {
                index: 3,
                id: 5,
                slices: 4,
                width: 4,
                starts: &[0],
                at_most: 1,
                memory_mib: $m4,
                name: $n4,
                media: false,
            },
            Profile {
                index: 4,
                id: 0,
                slices: 7,
                width: 8,
                starts: &[0],
                at_most: 1,
                memory_mib: $m7,
                name: $n7,
                media: true,
            },
        ]
    };
}

pub static MODELS: [Model; 5] = [
    Model {
        word: "a100",
        name: "NVIDIA A100-SXM4-40GB",
        memory_mib: 40_960,
        slice_sms: 14,
        links: 12,
        pcie_gen: 4,
        mode_needs_reset: true,
        limits: [89, 92, 95, 85],
        tlimit: None,
        nvlink5: false,
        fabric: false,
        profiles: profiles!(4_864 "1g.5gb", "1g.5gb+me", 9_856 "1g.10gb", 9_856 "2g.10gb", 19_968 "3g.20gb", 19_968 "4g.20gb", 40_192 "7g.40gb"),
    },
    Model {
        word: "a100-80",
        name: "NVIDIA A100-SXM4-80GB",
        memory_mib: 81_920,
        slice_sms: 14,
        links: 12,
        pcie_gen: 4,
        mode_needs_reset: true,
        limits: [89, 92, 95, 85],
        tlimit: None,
        nvlink5: false,
        fabric: false,
        profiles: profiles!(9_984 "1g.10gb", "1g.10gb+me", 20_096 "1g.20gb", 20_096 "2g.20gb", 40_448 "3g.40gb", 40_448 "4g.40gb", 81_152 "7g.80gb"),
    },
    Model {
        word: "h100",
        name: "NVIDIA H100 80GB HBM3",
        memory_mib: 81_559,
        slice_sms: 16,
        links: 18,
        pcie_gen: 5,
        mode_needs_reset: false,
        limits: [92, 95, 95, 87],
        tlimit: Some([-8, -2, 0, 0]),
        nvlink5: false,
        fabric: true,
        profiles: profiles!(9_984 "1g.10gb", "1g.10gb+me", 20_096 "1g.20gb", 20_096 "2g.20gb", 40_448 "3g.40gb", 40_448 "4g.40gb", 81_152 "7g.80gb"),
    },
    Model {
        word: "h200",
        name: "NVIDIA H200",
        memory_mib: 143_771,
        slice_sms: 16,
        links: 18,
        pcie_gen: 5,
        mode_needs_reset: false,
        limits: [92, 95, 95, 87],
        tlimit: Some([-8, -2, 0, 0]),
        nvlink5: false,
        fabric: true,
        profiles: profiles!(16_384 "1g.18gb", "1g.18gb+me", 33_075 "1g.35gb", 33_075 "2g.35gb", 71_168 "3g.71gb", 71_168 "4g.71gb", 143_360 "7g.141gb"),
    },
    Model {
        word: "b200",
        name: "NVIDIA B200",
        memory_mib: 183_359,
        slice_sms: 18,
        links: 18,
        pcie_gen: 5,
        mode_needs_reset: false,
        limits: [92, 95, 95, 87],
        tlimit: Some([-8, -3, 0, 0]),
        nvlink5: true,
        fabric: true,
        profiles: profiles!(21_504 "1g.23gb", "1g.23gb+me", 45_363 "1g.45gb", 45_363 "2g.45gb", 91_136 "3g.90gb", 91_136 "4g.90gb", 182_784 "7g.180gb"),
    },
];

pub fn model(word: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.word == word)
}

impl Model {
    pub fn by_id(&self, id: u32) -> Option<&'static Profile> {
        self.profiles_static().iter().find(|profile| profile.id == id)
    }

    pub fn by_index(&self, index: u32) -> Option<&'static Profile> {
        self.profiles_static().iter().find(|profile| profile.index == index)
    }

    fn profiles_static(&self) -> &'static [Profile] {
        self.profiles
    }
}
