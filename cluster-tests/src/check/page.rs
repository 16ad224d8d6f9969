//! The verdict as a page: what was done to the cluster, what came through meanwhile, and what is wrong, as a picture.

use std::fmt::Write as _;

use super::{Judgement, Verdict};
use crate::history::{History, Nanos, Outcome};

const WIDTH: f64 = 1100.0;
const LEFT: f64 = 70.0;
const PLOT_HEIGHT: f64 = 130.0;
const BARS: usize = 220;
const FAULT_HEIGHT: f64 = 16.0;
const SECOND: f64 = 1e9;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1180px;padding:0 1em;color:#1b1f24;background:#fff}\
h1{font-size:1.5em}h2{font-size:1.1em;margin-top:2em}table{border-collapse:collapse}td,th{text-align:left;padding:.2em 1em .2em 0;vertical-align:top}\
.passed{color:#0a6b2d}.failed{color:#b3261e}.void{color:#8a5a00}svg{display:block;width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:#57606a}\
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}svg text{fill:#8b949e}.passed{color:#3fb950}.failed{color:#ff7b72}.void{color:#d29922}}";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// What happened in one stretch of time.
#[derive(Clone, Debug, Default)]
struct Bucket {
    acknowledged: u64,
    unknown: u64,
    received: u64,
    latencies: Vec<Nanos>,
}

struct Picture {
    buckets: Vec<Bucket>,
    /// The end of the history.
    end: Nanos,
    svg: String,
    top: f64,
}

impl Picture {
    fn of(history: &History) -> Self {
        let sends = history.sends.iter().map(|s| s.span.complete);
        let polls = history.polls.iter().map(|p| p.span.complete);
        let faults = history.faults.iter().map(|f| f.span.complete);
        let end = sends.chain(polls).chain(faults).max().unwrap_or(0).max(1);
        let mut buckets = vec![Bucket::default(); BARS];
        let at =
            |moment: Nanos| ((moment as f64 / end as f64 * BARS as f64) as usize).min(BARS - 1);
        for send in &history.sends {
            let bucket = &mut buckets[at(send.span.complete)];
            match send.outcome {
                Outcome::Ok => {
                    bucket.acknowledged += 1;
                    bucket.latencies.push(send.span.complete - send.span.invoke);
                }
                Outcome::Info | Outcome::Fail => bucket.unknown += 1,
            }
        }
        for poll in &history.polls {
            buckets[at(poll.span.complete)].received += poll.records.len() as u64;
        }
        buckets.iter_mut().for_each(|b| b.latencies.sort_unstable());
        Self {
            buckets,
            end,
            svg: String::new(),
            top: 0.0,
        }
    }

    fn x(&self, moment: Nanos) -> f64 {
        LEFT + (WIDTH - LEFT) * moment as f64 / self.end as f64
    }

    fn text(&mut self, x: f64, y: f64, text: &str) {
        let text = escaped(text);
        let _written = write!(self.svg, "<text x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
    }

    fn rectangle(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &str, title: &str) {
        let title = escaped(title);
        let _written = write!(
            self.svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"><title>{title}</title></rect>"
        );
    }

    fn faults(&mut self, history: &History) {
        for fault in &history.faults {
            let (from, to) = (self.x(fault.span.invoke), self.x(fault.span.complete));
            let colour = match fault.leaves_quorum {
                true => "#d9a13b",
                false => "#cf4a3f",
            };
            let (begun, took) = (
                fault.span.invoke as f64 / SECOND,
                (fault.span.complete - fault.span.invoke) as f64 / SECOND,
            );
            let title = format!(
                "{} at {begun:.2} s for {took:.2} s: {}",
                fault.row, fault.what
            );
            let top = self.top;
            self.rectangle(
                from,
                top,
                (to - from).max(2.0),
                FAULT_HEIGHT - 4.0,
                colour,
                &title,
            );
            self.text(4.0, top + 10.0, &fault.row);
            self.top += FAULT_HEIGHT;
        }
        self.top += 10.0;
    }

    /// A plot with a bar per stretch of time, of one measure or of two that stand on each other.
    fn plot(
        &mut self,
        name: &str,
        unit: &str,
        measure: impl Fn(&Bucket) -> (f64, f64),
        colours: [&str; 2],
    ) {
        let values: Vec<(f64, f64)> = self.buckets.iter().map(measure).collect();
        let most = values
            .iter()
            .map(|(a, b)| a + b)
            .fold(0.0, f64::max)
            .max(1e-9);
        let (top, bottom) = (self.top + 16.0, self.top + 16.0 + PLOT_HEIGHT);
        self.text(LEFT, top - 4.0, name);
        self.text(4.0, top + 8.0, &format!("{most:.0} {unit}"));
        self.text(4.0, bottom, "0");
        let width = (WIDTH - LEFT) / BARS as f64;
        for (n, (lower, upper)) in values.iter().enumerate() {
            let x = LEFT + width * n as f64;
            let at = self.end as f64 * n as f64 / BARS as f64 / SECOND;
            let (low, high) = (lower / most * PLOT_HEIGHT, upper / most * PLOT_HEIGHT);
            let title = format!("{at:.1} s: {lower:.1} {unit}");
            self.rectangle(x, bottom - low, width * 0.9, low, colours[0], &title);
            if high > 0.0 {
                let title = format!("{at:.1} s: {:.1} {unit}", lower + upper);
                self.rectangle(
                    x,
                    bottom - low - high,
                    width * 0.9,
                    high,
                    colours[1],
                    &title,
                );
            }
        }
        self.top = bottom + 12.0;
    }

    fn axis(&mut self) {
        let seconds = self.end as f64 / SECOND;
        for n in 0..=10 {
            let at = seconds * f64::from(n) / 10.0;
            let x = LEFT + (WIDTH - LEFT - 30.0) * f64::from(n) / 10.0;
            let y = self.top + 4.0;
            self.text(x, y, &format!("{at:.0} s"));
        }
        self.top += 14.0;
    }

    fn drawn(mut self, history: &History) -> String {
        let stretch = self.end as f64 / BARS as f64 / SECOND;
        let percentile = |b: &Bucket, part: f64| {
            let at = (b.latencies.len() as f64 * part) as usize;
            b.latencies.get(at).map_or(0.0, |l| *l as f64 / 1e6)
        };
        self.faults(history);
        self.plot(
            "records acknowledged, and above them those of unknown outcome",
            "/s",
            |b| (b.acknowledged as f64 / stretch, b.unknown as f64 / stretch),
            ["#3f7fbf", "#cf4a3f"],
        );
        self.plot(
            "records received",
            "/s",
            |b| (b.received as f64 / stretch, 0.0),
            ["#5a9e6f", ""],
        );
        self.plot(
            "time until the acknowledgement: half of them, and 99 of 100",
            "ms",
            |b| (percentile(b, 0.5), percentile(b, 0.99) - percentile(b, 0.5)),
            ["#7d6bb0", "#c9bfe8"],
        );
        self.axis();
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"timeline\">{}</svg>",
            self.top, self.svg
        )
    }
}

/// A whole page, without anything that it would have to load.
#[must_use]
pub fn page(history: &History, verdict: &Verdict) -> String {
    let about = &history.about;
    let (class, said) = match verdict.judgement {
        Judgement::Passed => ("passed", "passed: no anomaly"),
        Judgement::Failed => ("failed", "FAILED"),
        Judgement::Void => (
            "void",
            "void: too little happened during the faults to say anything",
        ),
    };
    let mut rows = String::new();
    for (anomaly, found) in verdict.findings.iter() {
        let examples: Vec<String> = found.examples.iter().map(|e| escaped(e)).collect();
        let _written = write!(
            rows,
            "<tr><td>{anomaly}</td><td>{}</td><td>{}</td></tr>",
            found.count,
            examples.join("<br>")
        );
    }
    let anomalies = match rows.is_empty() {
        true => String::new(),
        false => format!(
            "<h2>Anomalies</h2><table><tr><th>what</th><th>times</th><th>the first</th></tr>{rows}</table>"
        ),
    };
    let picture = Picture::of(history).drawn(history);
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{workload} seed {seed}</title><style>{STYLE}</style>\
         <h1>{workload}, seed {seed}: <span class=\"{class}\">{said}</span></h1>\
         <p>{acknowledged} records acknowledged, {in_faults} of them during faults that left a quorum; {received} received; the longest wait \
         of a partition for an acknowledgement is {gap} ms; {faults} faults. Commit {commit}.</p>{picture}{anomalies}</html>\n",
        workload = escaped(&about.workload),
        seed = about.seed,
        acknowledged = verdict.acknowledged,
        in_faults = verdict.acknowledged_in_faults,
        received = verdict.received,
        gap = verdict.longest_gap_ms,
        faults = history.faults.len(),
        commit = escaped(&about.commit),
    )
}
