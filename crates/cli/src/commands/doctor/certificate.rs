//! What a person wants to know of a certificate: whose it is, who issued it, until when. For telling only: rustls
//! judges.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

/// The readable part of an X.509 certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    issuer: Name,
    subject: Name,
    /// Seconds since 1970.
    not_after: i64,
}

/// A distinguished name: its bytes, by which names are compared, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    der: Vec<u8>,
    text: String,
}

impl Certificate {
    /// Reads it; `None` for what is no certificate.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let mut certificate = Der(Der(der).take(SEQUENCE)?);
        let mut body = Der(certificate.take(SEQUENCE)?);
        body.take_if(VERSION);
        body.take(INTEGER)?;
        body.take(SEQUENCE)?;
        let issuer = Name::read(body.take(SEQUENCE)?);
        let mut validity = Der(body.take(SEQUENCE)?);
        validity.any()?;
        let not_after = time(validity.any()?)?;
        let subject = Name::read(body.take(SEQUENCE)?);
        Some(Self { issuer, subject, not_after })
    }

    pub(super) fn subject(&self) -> &str {
        &self.subject.text
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer.text
    }

    pub(super) fn is_self_issued(&self) -> bool {
        self.issuer.der == self.subject.der
    }

    /// The day on which it ends.
    pub(super) fn end(&self) -> String {
        date(self.not_after)
    }

    /// Whole days that it is still valid; negative after its end.
    pub(super) fn days_left(&self) -> i64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        (self.not_after - i64::try_from(now).unwrap_or(i64::MAX)).div_euclid(DAY)
    }
}

/// The last certificate that the chain leads to from its first one.
pub(super) fn end_of_chain(chain: &[CertificateDer<'_>]) -> Option<Certificate> {
    let certificates: Vec<Certificate> = chain.iter().filter_map(|der| Certificate::read(der)).collect();
    let mut end = certificates.first()?;
    for _ in 0..certificates.len() {
        match certificates.iter().find(|other| other.subject.der == end.issuer.der) {
            Some(issuer) if !end.is_self_issued() => end = issuer,
            Some(_) | None => break,
        }
    }
    Some(end.clone())
}

/// `2026-11-25`, for seconds since 1970.
pub(super) fn date(seconds: i64) -> String {
    // Days are counted from 1 March, so that the leap day is the last of its year (Hinnant's civil calendar).
    let days = seconds.div_euclid(DAY) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

const DAY: i64 = 24 * 60 * 60;

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
const ORGANIZATION: [u8; 3] = [0x55, 0x04, 0x0a];

impl Name {
    fn read(der: &[u8]) -> Self {
        let (mut common_name, mut organization) = (None, None);
        let mut sets = Der(der);
        while let Some((_, set)) = sets.any() {
            let mut pair = Der(Der(set).any().map_or(&[], |(_, pair)| pair));
            let (Some(id), Some((_, value))) = (pair.take(OBJECT_IDENTIFIER), pair.any()) else { continue };
            let text = || String::from_utf8_lossy(value).replace(char::is_control, " ");
            match id {
                _ if id == COMMON_NAME => common_name = Some(text()),
                _ if id == ORGANIZATION => organization = Some(text()),
                _ => {}
            }
        }
        let text = match (common_name, organization) {
            (Some(name), Some(organization)) => format!("{name} ({organization})"),
            (Some(name), None) | (None, Some(name)) => name,
            (None, None) => "one without a name".to_owned(),
        };
        Self { der: der.to_owned(), text }
    }
}

/// The rest of a value in the distinguished encoding rules.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and its content.
    fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, first, rest @ ..] = self.0 else { return None };
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            // Four bytes are more than any handshake carries.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }

    /// The content of the next element, which has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.any().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    /// Passes over the next element if it has this tag.
    fn take_if(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.any();
        }
    }
}

/// Seconds since 1970 (RFC 5280, section 4.1.2.5: always in UTC, with seconds).
fn time((tag, text): (u8, &[u8])) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let year = year - i64::from(month <= 2);
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let year_of_era = year.rem_euclid(400);
    let days = year.div_euclid(400) * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year
        - 719_468;
    Some(days * DAY + part(4)? * 3600 + part(6)? * 60 + part(8)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_certificates_are_seconds_and_dates() {
        let cases = [
            (UTC_TIME, "700101000000Z", 0, "1970-01-01"),
            (UTC_TIME, "491231235959Z", 2_524_607_999, "2049-12-31"),
            (GENERALIZED_TIME, "20500101000000Z", 2_524_608_000, "2050-01-01"),
            (UTC_TIME, "240229120000Z", 1_709_208_000, "2024-02-29"),
            (UTC_TIME, "000301000001Z", 951_868_801, "2000-03-01"),
        ];
        for (tag, text, seconds, shown) in cases {
            assert_eq!(time((tag, text.as_bytes())), Some(seconds), "{text}");
            assert_eq!(date(seconds), shown);
        }
        for text in ["", "Z", "7001010000Z", "700101000000", "é01010000Z"] {
            assert_eq!(time((UTC_TIME, text.as_bytes())), None, "{text}");
        }
    }

    #[test]
    fn garbage_is_no_certificate() {
        for der in [
            &[][..],
            &[0x30],
            &[0x30, 0x82, 0xff],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x02, 0x30, 0x00],
            &[0; 64],
        ] {
            assert_eq!(Certificate::read(der), None, "{der:?}");
        }
    }
}
