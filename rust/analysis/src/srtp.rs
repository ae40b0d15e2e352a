//! Decrypting SRTP (RFC 3711) with keys that are known, as from the `a=crypto` line of an SDP (RFC 4568).
//!
//! The transforms are AES in counter mode with 128-bit keys and HMAC-SHA1. A replay list is kept only if asked for:
//! in a recording, a packet that came twice is a fact to count and not an attack.

use std::fmt;
use std::str::FromStr;

use aes::Aes128;
use aes::cipher::{KeyIvInit, StreamCipher};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use rtpproxy_core::rtp::{FIXED_HEADER_LEN, RtpError, RtpView};
use sha1::Sha1;

/// What a party encrypts with: `AES_CM_128_HMAC_SHA1_80:KEY` or `AES_CM_128_HMAC_SHA1_32:KEY`, where KEY is
/// the base64 of 16 bytes of key and 14 of salt.
#[derive(Clone, PartialEq, Eq)]
pub struct Crypto {
    tag_len: usize,
    key: [u8; KEY_LEN],
    salt: [u8; SALT_LEN],
}

impl FromStr for Crypto {
    type Err = BadCrypto;

    fn from_str(text: &str) -> Result<Self, BadCrypto> {
        let (suite, key) = text.split_once(':').ok_or(BadCrypto::NoKey)?;
        let tag_len = SUITES
            .iter()
            .find_map(|(name, tag_len)| (*name == suite).then_some(*tag_len))
            .ok_or_else(|| BadCrypto::Suite(suite.to_owned()))?;
        let bytes = BASE64_STANDARD.decode(key).map_err(|_| BadCrypto::Key)?;
        match bytes.split_first_chunk() {
            Some((&key, salt)) => {
                Ok(Self { tag_len, key, salt: salt.try_into().map_err(|_| BadCrypto::Key)? })
            }
            None => Err(BadCrypto::Key),
        }
    }
}

impl fmt::Debug for Crypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys do not belong into logs.
        f.debug_struct("Crypto").field("tag_len", &self.tag_len).finish_non_exhaustive()
    }
}

/// Why a text is no [`Crypto`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCrypto {
    /// No colon, and so no key.
    #[error("no key: it is written SUITE:KEY, like AES_CM_128_HMAC_SHA1_80:...")]
    NoKey,
    /// A suite that is not known.
    #[error("{0:?} is no known suite (AES_CM_128_HMAC_SHA1_80, AES_CM_128_HMAC_SHA1_32)")]
    Suite(String),
    /// The key is of another length, or no base64.
    #[error("the key is not the base64 of 30 bytes (40 characters)")]
    Key,
}

/// Decrypts what one source sends. Which one that is, the first packet of the key tells.
#[derive(Clone)]
pub struct Decryptor {
    tag_len: usize,
    cipher_key: [u8; KEY_LEN],
    auth: Hmac<Sha1>,
    salt: [u8; SALT_LEN],
    source: Option<Source>,
    refuses_repeated: bool,
}

impl Decryptor {
    /// A decryptor that has seen no packet.
    pub fn new(crypto: &Crypto) -> Self {
        let auth: [u8; AUTH_KEY_LEN] = derive(crypto, LABEL_AUTH);
        Self {
            tag_len: crypto.tag_len,
            cipher_key: derive(crypto, LABEL_CIPHER),
            auth: <Hmac<Sha1> as KeyInit>::new_from_slice(&auth).expect("HMAC takes keys of any length"),
            salt: derive(crypto, LABEL_SALT),
            source: None,
            refuses_repeated: false,
        }
    }

    /// The same with the replay list of RFC 3711, section 3.3.2, of 128 packets.
    pub fn with_replay_list(crypto: &Crypto) -> Self {
        Self { refuses_repeated: true, ..Self::new(crypto) }
    }

    /// The RTP packet in an SRTP packet.
    ///
    /// # Errors
    ///
    /// When it is no RTP, of another source, not of this key, or repeated and there is a list of those.
    pub fn decrypt(&mut self, packet: &[u8]) -> Result<Vec<u8>, SrtpError> {
        let mut plain = packet.to_vec();
        let first = plain.first_mut().ok_or(RtpError::Short { len: 0 })?;
        let is_padded = *first & PADDING_BIT;
        // The length of the padding is encrypted.
        *first &= !PADDING_BIT;
        let view = RtpView::parse_unshared(&plain)?;
        let (ssrc, sequence, header_len) = (view.ssrc(), view.sequence(), view.header_len());
        plain[0] |= is_padded;
        let end = plain
            .len()
            .checked_sub(self.tag_len)
            .filter(|&end| end >= header_len.max(FIXED_HEADER_LEN))
            .ok_or(SrtpError::NoTag)?;
        let tag = plain.split_off(end);

        let source = self.source.unwrap_or_else(|| Source::new(ssrc, sequence));
        if source.ssrc != ssrc {
            return Err(SrtpError::Source { ssrc, expected: source.ssrc });
        }
        let index = source.guess(sequence);
        if self.refuses_repeated && source.has_seen(index) {
            return Err(SrtpError::Repeated);
        }
        let mut auth = self.auth.clone();
        auth.update(&plain);
        auth.update(&roll_over(index).to_be_bytes());
        auth.verify_truncated_left(&tag).map_err(|_| SrtpError::Tag)?;
        self.source = Some(source.with(index));

        let mut iv = [0; IV_LEN];
        iv[..SALT_LEN].copy_from_slice(&self.salt);
        xor(&mut iv[4..8], &ssrc.to_be_bytes());
        xor(&mut iv[8..14], &index.to_be_bytes()[2..]);
        apply(&self.cipher_key, &iv, &mut plain[header_len..]);
        Ok(plain)
    }
}

impl fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decryptor").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Why a packet cannot be decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrtpError {
    /// It is no RTP packet.
    #[error(transparent)]
    Rtp(#[from] RtpError),
    /// It is too short for the tag at its end.
    #[error("too short for SRTP")]
    NoTag,
    /// It is of another source.
    #[error("SSRC 0x{ssrc:08X}, where the first packet has 0x{expected:08X}")]
    Source {
        /// That of the packet.
        ssrc: u32,
        /// That of the first packet.
        expected: u32,
    },
    /// The replay list has it, or no longer reaches back to it.
    #[error("it came twice, or {REPLAY_LEN} packets late")]
    Repeated,
    /// Its tag is not of this key.
    #[error("the tag is wrong: another key, or no SRTP")]
    Tag,
}

/// Where in its sequence a source is (RFC 3711, section 3.3.1). An index is a sequence number with the number of
/// its wraps above.
#[derive(Clone, Copy, Debug)]
struct Source {
    ssrc: u32,
    /// The highest index.
    highest: u64,
    /// Which of the latest indices were seen, the highest in the lowest bit.
    seen: u128,
}

impl Source {
    fn new(ssrc: u32, sequence: u16) -> Self {
        Self { ssrc, highest: sequence.into(), seen: 0 }
    }

    fn guess(self, sequence: u16) -> u64 {
        let roll_over = u64::from(roll_over(self.highest));
        let highest = self.highest as u16;
        let roll_over = if highest < HALF_CYCLE && sequence.saturating_sub(highest) > HALF_CYCLE {
            // Nothing comes before the first wrap: that is a leap forward.
            roll_over.saturating_sub(1)
        } else if highest.checked_sub(HALF_CYCLE).is_some_and(|behind| behind > sequence) {
            roll_over + 1
        } else {
            roll_over
        };
        roll_over << 16 | u64::from(sequence)
    }

    fn has_seen(self, index: u64) -> bool {
        match self.highest.checked_sub(index) {
            Some(back) if back < REPLAY_LEN => self.seen >> back & 1 == 1,
            back => back.is_some(),
        }
    }

    fn with(self, index: u64) -> Self {
        let ahead = index.saturating_sub(self.highest);
        let kept = if ahead < REPLAY_LEN { self.seen << ahead } else { 0 };
        let highest = self.highest.max(index);
        let back = highest - index;
        let new = if back < REPLAY_LEN { 1 << back } else { 0 };
        Self { highest, seen: kept | new, ..self }
    }
}

/// How often the sequence number has wrapped.
fn roll_over(index: u64) -> u32 {
    (index >> 16) as u32
}

/// A session key (RFC 3711, section 4.3.1), for a key derivation rate of 0.
fn derive<const N: usize>(crypto: &Crypto, label: u8) -> [u8; N] {
    let mut iv = [0; IV_LEN];
    iv[..SALT_LEN].copy_from_slice(&crypto.salt);
    iv[7] ^= label;
    let mut key = [0; N];
    apply(&crypto.key, &iv, &mut key);
    key
}

fn apply(key: &[u8; KEY_LEN], iv: &[u8; IV_LEN], bytes: &mut [u8]) {
    ctr::Ctr128BE::<Aes128>::new(key.into(), iv.into()).apply_keystream(bytes);
}

fn xor(bytes: &mut [u8], with: &[u8]) {
    for (byte, with) in bytes.iter_mut().zip(with) {
        *byte ^= with;
    }
}

/// Suites, with the bytes of their tags.
const SUITES: [(&str, usize); 2] = [("AES_CM_128_HMAC_SHA1_80", 10), ("AES_CM_128_HMAC_SHA1_32", 4)];
const KEY_LEN: usize = 16;
const SALT_LEN: usize = 14;
const AUTH_KEY_LEN: usize = 20;
const IV_LEN: usize = 16;
const LABEL_CIPHER: u8 = 0;
const LABEL_AUTH: u8 = 1;
const LABEL_SALT: u8 = 2;
const PADDING_BIT: u8 = 0x20;
const HALF_CYCLE: u16 = 0x8000;
const REPLAY_LEN: u64 = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        let digits: Vec<_> = hex.chars().filter(|c| !c.is_whitespace()).collect();
        let bytes: Vec<_> = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
            .collect();
        bytes.try_into().unwrap()
    }

    fn crypto(tag_len: usize) -> Crypto {
        // RFC 3711, section B.3.
        Crypto {
            tag_len,
            key: bytes("E1F97A0D3E018BE0D64FA32C06DE4139"),
            salt: bytes("0EC675AD498AFEEBB6960B3AABE6"),
        }
    }

    /// The other direction, by the same section of the RFC but from the sender's view.
    fn encrypt(crypto: &Crypto, packet: &[u8], header_len: usize, roll_over: u32) -> Vec<u8> {
        let decryptor = Decryptor::new(crypto);
        let mut sealed = packet.to_vec();
        let mut iv = [0; IV_LEN];
        iv[..SALT_LEN].copy_from_slice(&decryptor.salt);
        xor(&mut iv[4..8], &packet[8..12]);
        xor(&mut iv[8..12], &roll_over.to_be_bytes());
        xor(&mut iv[12..14], &packet[2..4]);
        apply(&decryptor.cipher_key, &iv, &mut sealed[header_len..]);
        let mut auth = decryptor.auth.clone();
        auth.update(&sealed);
        auth.update(&roll_over.to_be_bytes());
        sealed.extend(&auth.finalize().into_bytes()[..crypto.tag_len]);
        sealed
    }

    fn rtp(sequence: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, 0];
        packet.extend(sequence.to_be_bytes());
        packet.extend([0, 0, 0, 1, 0xca, 0xfe, 0xba, 0xbe]);
        packet.extend(payload);
        packet
    }

    #[test]
    fn keystream_is_that_of_the_rfc() {
        // Section B.2.
        let mut stream = [0; 48];
        apply(
            &bytes("2B7E151628AED2A6ABF7158809CF4F3C"),
            &bytes("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000"),
            &mut stream,
        );
        assert_eq!(
            stream,
            bytes::<48>(
                "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB \
                 41E95B3BB0A2E8DD477901E4FCA894C0"
            )
        );
    }

    #[test]
    fn session_keys_are_those_of_the_rfc() {
        // Section B.3.
        let crypto = crypto(10);
        assert_eq!(derive::<16>(&crypto, LABEL_CIPHER), bytes("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(derive::<14>(&crypto, LABEL_SALT), bytes("30CBBC08863D8C85D49DB34A9AE1"));
        assert_eq!(derive::<20>(&crypto, LABEL_AUTH), bytes("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
    }

    #[test]
    fn crypto_is_read_and_refused() {
        let key = BASE64_STANDARD.encode([7; 30]);
        let read = |text: &str| text.parse::<Crypto>();
        assert_eq!(read(&format!("AES_CM_128_HMAC_SHA1_80:{key}")).unwrap().tag_len, 10);
        assert_eq!(read(&format!("AES_CM_128_HMAC_SHA1_32:{key}")).unwrap().tag_len, 4);
        assert_eq!(read("AES_CM_128_HMAC_SHA1_80"), Err(BadCrypto::NoKey));
        assert_eq!(read("AES_CM_256:AAAA"), Err(BadCrypto::Suite("AES_CM_256".to_owned())));
        for wrong in ["", "AAAA", "????????????????????????????????????????"] {
            assert_eq!(read(&format!("AES_CM_128_HMAC_SHA1_80:{wrong}")), Err(BadCrypto::Key));
        }
        let long = BASE64_STANDARD.encode([7; 33]);
        assert_eq!(read(&format!("AES_CM_128_HMAC_SHA1_80:{long}")), Err(BadCrypto::Key));
        assert!(!format!("{:?}", read(&format!("AES_CM_128_HMAC_SHA1_80:{key}")).unwrap()).contains('7'));
    }

    #[test]
    fn follows_the_sequence_over_its_wrap() {
        let crypto = crypto(10);
        let mut decryptor = Decryptor::new(&crypto);
        let order =
            [(65_534, 0), (65_535, 0), (1, 1), (0, 1), (65_533, 0), (2, 1), (30_000, 1), (60_000, 1), (3, 2)];
        for (sequence, roll_over) in order {
            let plain = rtp(sequence, b"sound");
            let sealed = encrypt(&crypto, &plain, 12, roll_over);
            assert_eq!(decryptor.decrypt(&sealed).as_ref(), Ok(&plain), "{sequence}");
        }
    }

    #[test]
    fn a_leap_before_the_first_wrap_is_forward() {
        let crypto = crypto(10);
        let mut decryptor = Decryptor::new(&crypto);
        for sequence in [5, 60_000] {
            let plain = rtp(sequence, b"sound");
            assert_eq!(decryptor.decrypt(&encrypt(&crypto, &plain, 12, 0)), Ok(plain));
        }
    }

    #[test]
    fn what_is_not_of_the_key_does_not_say_what_the_source_is() {
        let crypto = crypto(10);
        let mut decryptor = Decryptor::new(&crypto);
        let mut report = vec![0x80, 200, 0, 6];
        report.extend([7; 40]);
        assert_eq!(decryptor.decrypt(&report), Err(SrtpError::Tag));
        let plain = rtp(65_535, b"sound");
        assert_eq!(decryptor.decrypt(&encrypt(&crypto, &plain, 12, 0)), Ok(plain));
    }

    #[test]
    fn repeated_packets_are_refused_if_asked_for() {
        let crypto = crypto(10);
        let mut lenient = Decryptor::new(&crypto);
        let mut strict = Decryptor::with_replay_list(&crypto);
        let order =
            [(65_000, 0), (65_500, 0), (65_500, 0), (65_373, 0), (65_372, 0), (3, 1), (3, 1), (65_500, 0)];
        let refused = [false, false, true, false, true, false, true, true];
        for ((sequence, roll_over), is_refused) in order.into_iter().zip(refused) {
            let plain = rtp(sequence, b"sound");
            let sealed = encrypt(&crypto, &plain, 12, roll_over);
            let expected = if is_refused { Err(SrtpError::Repeated) } else { Ok(plain.clone()) };
            assert_eq!(strict.decrypt(&sealed), expected, "{sequence}");
            assert_eq!(lenient.decrypt(&sealed), Ok(plain), "{sequence}");
        }
    }

    #[test]
    fn refuses_what_is_not_of_the_key_or_the_source() {
        let crypto = crypto(4);
        let mut decryptor = Decryptor::new(&crypto);
        let mut sealed = encrypt(&crypto, &rtp(1, b"sound"), 12, 0);
        decryptor.decrypt(&sealed).unwrap();
        sealed[13] ^= 1;
        assert_eq!(decryptor.decrypt(&sealed), Err(SrtpError::Tag));
        sealed[11] ^= 1;
        assert!(matches!(decryptor.decrypt(&sealed), Err(SrtpError::Source { .. })));
        assert_eq!(decryptor.decrypt(&sealed[..15]), Err(SrtpError::NoTag));
        assert_eq!(decryptor.decrypt(b""), Err(SrtpError::Rtp(RtpError::Short { len: 0 })));
    }

    proptest! {
        #[test]
        fn gives_back_what_was_encrypted(
            sequence: u16,
            payload in prop::collection::vec(any::<u8>(), 0..200),
            has_extension: bool,
            is_short_tag: bool,
        ) {
            let crypto = crypto(if is_short_tag { 4 } else { 10 });
            let mut plain = rtp(sequence, b"");
            if has_extension {
                plain[0] |= 0x10;
                plain.extend([0xbe, 0xde, 0, 1, 1, 2, 3, 4]);
            }
            let header_len = plain.len();
            plain.extend(&payload);
            let sealed = encrypt(&crypto, &plain, header_len, 0);
            prop_assert_eq!(Decryptor::new(&crypto).decrypt(&sealed), Ok(plain));
        }

        #[test]
        fn no_bytes_upset_it(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8)) {
            let mut decryptor = Decryptor::new(&crypto(4));
            for packet in packets {
                let _ = decryptor.decrypt(&packet);
            }
        }
    }
}
