//! Tells that a certificate nears its end, and that it has come.
//!
//! Each certificate is told of once at each threshold, however often it is looked at and its files are read again. A renewed one begins anew.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use wootz_tls::CertificateStatus;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Days before the end. One that is more than a third of a certificate's life is passed over: such a certificate is not late.
const THRESHOLDS: [u32; 4] = [14, 7, 3, 1];

/// What was told of the certificates of a server.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    told: HashMap<PathBuf, Told>,
}

#[derive(Debug)]
struct Told {
    /// Which certificate it was: a renewed one ends at another time.
    not_after: SystemTime,
    nearness: Nearness,
}

/// How near an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nearness {
    Far,
    /// The number of the threshold that was crossed last.
    Within(usize),
    Over,
}

impl Nearness {
    fn of(certificate: &CertificateStatus, now: SystemTime) -> Self {
        let Ok(left) = certificate.not_after.duration_since(now) else { return Self::Over };
        let life = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
        let crossed = |days: &u32| left <= DAY * *days && DAY * *days <= life / 3;
        THRESHOLDS.iter().rposition(crossed).map_or(Self::Far, Self::Within)
    }

    /// Tells an operator.
    pub(super) fn tell(self, of: &CertificateStatus) {
        let (file, names, days_left) = (of.path.display(), of.names.join(" "), of.days_left);
        match self {
            Self::Far => {}
            Self::Within(threshold) => {
                let days = THRESHOLDS[threshold];
                let days = if days == 1 { "a day".to_owned() } else { format!("{days} days") };
                tracing::warn!(%file, names, days_left, "certificate ends within {days}: renew it");
            }
            Self::Over => {
                tracing::error!(%file, names, days_left, "certificate has expired, browsers refuse it: renew it; what is put in place of its file is taken without a restart");
            }
        }
    }
}

impl Expiry {
    /// What is to be told as of `now`, and counts as told then.
    pub(super) fn look<'c>(
        &mut self,
        certificates: &'c [CertificateStatus],
        now: SystemTime,
    ) -> Vec<(&'c CertificateStatus, Nearness)> {
        certificates.iter().filter_map(|of| Some((of, self.news(of, now)?))).collect()
    }

    fn news(&mut self, of: &CertificateStatus, now: SystemTime) -> Option<Nearness> {
        let nearness = Nearness::of(of, now);
        let told = self.told.get(&of.path).filter(|told| told.not_after == of.not_after);
        if nearness <= told.map_or(Nearness::Far, |told| told.nearness) {
            return None;
        }
        self.told.insert(of.path.clone(), Told { not_after: of.not_after, nearness });
        Some(nearness)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    /// A certificate for so many days from the epoch on.
    fn certificate(path: &str, days: u32) -> CertificateStatus {
        let (not_before, not_after) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + DAY * days);
        CertificateStatus { path: path.into(), names: vec![], not_before, not_after, days_left: 0 }
    }

    /// When what was told in the life of such a certificate and five days after it, looked at every hour: hours before its end.
    fn told(days: u32) -> Vec<(i64, Nearness)> {
        let (mut expiry, certificates) = (Expiry::default(), [certificate("a.pem", days)]);
        let hours = 0..(days + 5) * 24;
        let look = |hour: u32| {
            let news = expiry.look(&certificates, SystemTime::UNIX_EPOCH + HOUR * hour);
            news.first().map(|(_, nearness)| (i64::from(days * 24) - i64::from(hour), *nearness))
        };
        hours.filter_map(look).collect()
    }

    #[test]
    fn each_threshold_is_told_once_and_the_end_too() {
        use Nearness::{Over, Within};
        let all = [(14 * 24, Within(0)), (7 * 24, Within(1)), (3 * 24, Within(2)), (24, Within(3)), (-1, Over)];
        assert_eq!(told(90), all);
        assert_eq!(told(45), all);
    }

    #[test]
    fn certificates_of_a_short_life_are_not_late_from_their_first_day_on() {
        use Nearness::{Over, Within};
        assert_eq!(told(6), [(24, Within(3)), (-1, Over)]);
        assert_eq!(told(10), [(3 * 24, Within(2)), (24, Within(3)), (-1, Over)]);
        assert_eq!(told(1), [(-1, Over)]);
    }

    #[test]
    fn a_late_start_is_told_of_the_last_threshold_only_and_a_clock_that_is_set_back_repeats_nothing() {
        let (mut expiry, certificates) = (Expiry::default(), [certificate("a.pem", 90)]);
        let at = |day: u32| SystemTime::UNIX_EPOCH + DAY * day;
        assert_eq!(expiry.look(&certificates, at(88)), [(&certificates[0], Nearness::Within(2))]);
        assert_eq!(expiry.look(&certificates, at(80)), []);
        assert_eq!(expiry.look(&certificates, at(88)), []);
        assert_eq!(expiry.look(&certificates, at(91)), [(&certificates[0], Nearness::Over)]);
    }

    #[test]
    fn each_certificate_counts_for_itself_and_a_renewed_one_begins_anew() {
        let mut expiry = Expiry::default();
        let mut certificates = [certificate("a.pem", 90), certificate("b.pem", 95)];
        let at = |day: u32| SystemTime::UNIX_EPOCH + DAY * day;
        let told = |news: Vec<(&CertificateStatus, Nearness)>| -> Vec<_> {
            news.into_iter().map(|(of, nearness)| (of.path.display().to_string(), nearness)).collect()
        };
        let within = |file: &str, threshold| (file.to_owned(), Nearness::Within(threshold));
        assert_eq!(told(expiry.look(&certificates, at(78))), [within("a.pem", 0)]);
        assert_eq!(told(expiry.look(&certificates, at(84))), [within("a.pem", 1), within("b.pem", 0)]);
        certificates[0] = certificate("a.pem", 180);
        assert_eq!(told(expiry.look(&certificates, at(84))), []);
        assert_eq!(
            told(expiry.look(&certificates, at(170))),
            [within("a.pem", 0), ("b.pem".to_owned(), Nearness::Over)]
        );
    }
}
