//! The table that a bench prints: what was measured, the figure, the bar, and how far from it.

use std::time::Duration;

/// One line. `of`: figure divided by bar, so that less than 1 has met it.
pub fn row(what: &str, figure: String, bar: &str, of: Option<f64>) {
    let of = of.map_or(String::new(), |of| format!("{of:.2}{}", if of > 1.0 { " missed" } else { "" }));
    println!("| {what} | {figure} | {bar} | {of} |");
}

pub fn time_row(what: &str, figure: Duration, bar: Duration) {
    row(what, ms(figure), &ms(bar), Some(figure.as_secs_f64() / bar.as_secs_f64()));
}

pub fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// The value below which this share of all lies.
pub fn share<T: Copy + Ord + Default>(values: &mut [T], share: f64) -> T {
    values.sort_unstable();
    values.get((values.len() as f64 * share) as usize).or(values.last()).copied().unwrap_or_default()
}
