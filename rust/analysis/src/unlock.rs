//! Opening encrypted recordings: files of `age`, and sealed ones ([`rtpproxy_core::sealed`]).

use std::fmt;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use age::stream::StreamReader;
use age::{DecryptError, Decryptor, Identity, IdentityFile, ssh};
use rtpproxy_core::sealed::{self, Chunks, Head, HeadError, Key, OpenError, State, Unsealer};
use zeroize::Zeroizing;

/// Secret keys that open recordings: of age, or of ssh. Cheap to clone.
#[derive(Clone, Default)]
pub struct Identities(Arc<[Box<dyn Identity + Send + Sync>]>);

impl Identities {
    /// Reads files with secret keys: those of `age-keygen`, or private keys of ssh without a passphrase.
    ///
    /// # Errors
    ///
    /// When one cannot be read, or has no key that can be used.
    pub fn read(paths: &[PathBuf]) -> Result<Self, IdentityError> {
        let mut all: Vec<Box<dyn Identity + Send + Sync>> = Vec::new();
        for path in paths {
            let error = |reason: String| IdentityError { path: path.clone(), reason };
            let text = Zeroizing::new(std::fs::read(path).map_err(|reason| error(reason.to_string()))?);
            all.extend(parse(&text, path).map_err(error)?);
        }
        Ok(Self(all.into()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is in a file of age.
    fn open<R: Read>(&self, file: R) -> Result<AgeReader<R>, UnlockError> {
        let mut file = BufReader::new(file);
        let header = age_header(&mut file)?;
        let decryptor = Decryptor::new_buffered(Cursor::new(header).chain(file))?;
        if decryptor.is_scrypt() {
            return Err(UnlockError::Passphrase);
        }
        if self.is_empty() {
            return Err(UnlockError::NoIdentity);
        }
        Ok(decryptor.decrypt(self.0.iter().map(|identity| &**identity as &dyn Identity))?)
    }

    /// The key of a sealed file.
    fn key(&self, head: &Head) -> Result<Key, UnlockError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(Key::LEN + 1));
        // What is longer is no key.
        let mut plain = self.open(&head.sealed_key[..])?.take(Key::LEN as u64 + 1);
        plain.read_to_end(&mut bytes).map_err(|_| UnlockError::Damaged)?;
        Key::from_slice(&bytes).ok_or(UnlockError::Damaged)
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

/// A file with secret keys that is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("identity {}: {reason}", path.display())]
pub struct IdentityError {
    /// The file.
    pub path: PathBuf,
    /// Why it is of no use.
    pub reason: String,
}

/// Why an encrypted file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// No secret key was given.
    #[error("it is encrypted: a file with the secret key is needed (--identity)")]
    NoIdentity,
    /// None of them fits.
    #[error("it is encrypted for others: none of the identities opens it")]
    OtherIdentity,
    /// It is for those who know a passphrase, which no recording is.
    #[error("it is encrypted with a passphrase, not for a key: decrypt it first (age -d)")]
    Passphrase,
    /// The encrypted bytes are not what was written.
    #[error("it is encrypted, and damaged at its beginning: nothing can be read")]
    Damaged,
    /// It is of a kind that is not known.
    #[error("it is encrypted in a way that this program does not know")]
    Unknown,
    /// The beginning of a sealed file cannot be used.
    #[error(transparent)]
    Head(HeadError),
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<DecryptError> for UnlockError {
    fn from(error: DecryptError) -> Self {
        match error {
            DecryptError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::Damaged,
            DecryptError::Io(error) => Self::Io(error),
            DecryptError::NoMatchingKeys => Self::OtherIdentity,
            DecryptError::UnknownFormat => Self::Unknown,
            _ => Self::Damaged,
        }
    }
}

impl From<OpenError> for UnlockError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io(error) => Self::Io(error),
            OpenError::Head(error) => Self::Head(error),
        }
    }
}

impl From<UnlockError> for io::Error {
    fn from(error: UnlockError) -> Self {
        let kind = match error {
            UnlockError::Io(error) => return error,
            UnlockError::NoIdentity | UnlockError::OtherIdentity | UnlockError::Passphrase => {
                io::ErrorKind::PermissionDenied
            }
            UnlockError::Damaged | UnlockError::Unknown | UnlockError::Head(_) => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// A file as it was before it was encrypted; one that is not encrypted is given as it is.
pub struct Unlocked<R> {
    content: Content<R>,
}

impl<R: Read> Unlocked<R> {
    /// Opens `file`, which tells by its first bytes how it is encrypted. Damage in it ends the reading with an error.
    ///
    /// # Errors
    ///
    /// When it is encrypted and no identity opens it, or when it cannot be read.
    pub fn new(file: R, identities: &Identities) -> Result<Self, UnlockError> {
        let (kind, file) = peek(file)?;
        let content = match kind {
            Kind::Plain => Content::Plain(file),
            Kind::Age => Content::Age(Box::new(identities.open(file)?)),
            Kind::Sealed => {
                let chunks = Chunks::new(file)?;
                let key = identities.key(chunks.head())?;
                Content::Sealed(Box::new(Unsealer::new(chunks, &key)))
            }
        };
        Ok(Self { content })
    }

    /// Reads on behind the damaged chunks of a sealed file.
    pub fn leave_out_damage(&mut self) {
        if let Content::Sealed(unsealer) = &mut self.content {
            unsealer.leave_out_damage();
        }
    }

    /// How the file is encrypted.
    pub fn kind(&self) -> Kind {
        match &self.content {
            Content::Plain(_) => Kind::Plain,
            Content::Age(_) => Kind::Age,
            Content::Sealed(_) => Kind::Sealed,
        }
    }

    /// What was met in a sealed file so far; `None` of another one.
    pub fn sealed(&self) -> Option<&State> {
        match &self.content {
            Content::Sealed(unsealer) => Some(unsealer.state()),
            Content::Plain(_) | Content::Age(_) => None,
        }
    }
}

impl<R: Read> Read for Unlocked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.content {
            Content::Plain(file) => file.read(buffer),
            Content::Age(file) => file.read(buffer),
            Content::Sealed(file) => file.read(buffer),
        }
    }
}

/// How a file is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Not at all.
    Plain,
    /// By age.
    Age,
    /// By the recorder while it wrote.
    Sealed,
}

/// What a file was read from, with the bytes that told its kind.
pub type Peeked<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// Tells by its first bytes how a file is encrypted, and gives it back from its beginning.
///
/// # Errors
///
/// When it cannot be read.
pub fn peek<R: Read>(mut file: R) -> io::Result<(Kind, Peeked<R>)> {
    let mut start = Vec::new();
    file.by_ref().take(AGE.len() as u64).read_to_end(&mut start)?;
    let kind = if start == AGE {
        Kind::Age
    } else if sealed::is_magic(&start) {
        Kind::Sealed
    } else {
        Kind::Plain
    };
    Ok((kind, Cursor::new(start).chain(file)))
}

enum Content<R> {
    Plain(Peeked<R>),
    Age(Box<AgeReader<Peeked<R>>>),
    Sealed(Box<Unsealer<Peeked<R>>>),
}

/// A file of age behind its header, which was read before.
type AgeReader<R> = StreamReader<io::Chain<Cursor<Vec<u8>>, BufReader<R>>>;

/// Reads the header of a file of age, which names those who can open it. The parser takes it as it comes, and begins
/// anew with each line: a header without an end would keep it busy for ever.
fn age_header(file: &mut impl BufRead) -> Result<Vec<u8>, UnlockError> {
    let mut header = Vec::new();
    let mut rest = file.take(AGE_HEADER_MAX);
    for _ in 0..AGE_LINES_MAX {
        let begin = header.len();
        let read = rest.read_until(b'\n', &mut header)?;
        if rest.limit() == 0 {
            break;
        }
        if read == 0 || header[begin..].starts_with(b"---") {
            return Ok(header);
        }
    }
    Err(UnlockError::Damaged)
}

fn parse(text: &[u8], path: &Path) -> Result<Vec<Box<dyn Identity + Send + Sync>>, String> {
    if text.starts_with(AGE) {
        return Err("it is protected by a passphrase: decrypt it first (age -d)".to_owned());
    }
    if text.starts_with(b"-----BEGIN ") {
        let identity = ssh::Identity::from_buffer(text, Some(path.display().to_string()));
        return match identity.map_err(|_| "it is no private key of ssh that can be used".to_owned())? {
            ssh::Identity::Unencrypted(key) => Ok(vec![Box::new(ssh::Identity::Unencrypted(key))]),
            ssh::Identity::Encrypted(_) => {
                Err("it is protected by a passphrase: use a copy without one (ssh-keygen -p)".to_owned())
            }
            ssh::Identity::Unsupported(_) => Err("keys of its kind cannot be used".to_owned()),
        };
    }
    let file = IdentityFile::from_buffer(text).map_err(|_| {
        "it is no file with secret keys: those of age-keygen, or a private key of ssh".to_owned()
    })?;
    let identities = file.into_identities().map_err(|_| "its keys cannot be used".to_owned())?;
    if identities.is_empty() { Err("there is no secret key in it".to_owned()) } else { Ok(identities) }
}

/// What a file of age begins with.
const AGE: &[u8] = b"age-encryption.org/v1\n";
/// More bytes than 256 recipients take, and more lines.
const AGE_HEADER_MAX: u64 = 256 << 10;
const AGE_LINES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use age::Encryptor;
    use age::secrecy::ExposeSecret;
    use age::x25519;
    use rtpproxy_core::salvage::Format;
    use rtpproxy_core::sealed::Sealer;

    use super::*;

    #[test]
    fn what_is_encrypted_is_read_with_its_identity() {
        let (secret, identities) = identities();
        for file in [age(&secret, b"packets"), sealed(&secret, b"packets", true), b"packets".to_vec()] {
            let mut plain = Vec::new();
            Unlocked::new(&file[..], &identities).unwrap().read_to_end(&mut plain).unwrap();
            assert_eq!(plain, b"packets");
        }
        let file = sealed(&secret, b"packets", false);
        let mut unlocked = Unlocked::new(&file[..], &identities).unwrap();
        unlocked.read_to_end(&mut Vec::new()).unwrap();
        assert!(!unlocked.sealed().unwrap().is_complete);
    }

    #[test]
    fn without_the_identity_nothing_is_read() {
        let (secret, _) = identities();
        let (_, others) = identities();
        for file in [age(&secret, b"packets"), sealed(&secret, b"packets", true)] {
            let error = |identities: &Identities| {
                Unlocked::new(&file[..], identities).map(drop).unwrap_err().to_string()
            };
            assert_eq!(error(&others), "it is encrypted for others: none of the identities opens it");
            assert!(error(&Identities::default()).contains("--identity"));
        }
    }

    #[test]
    fn cut_files_are_no_whole_ones() {
        let (secret, identities) = identities();
        let whole = age(&secret, b"packets");
        let read_all = |len: usize| -> io::Result<usize> {
            let mut unlocked = Unlocked::new(&whole[..len], &identities)?;
            unlocked.read_to_end(&mut Vec::new())
        };
        assert!(read_all(whole.len()).is_ok());
        for len in AGE.len()..whole.len() {
            read_all(len).unwrap_err();
        }
    }

    #[test]
    fn a_header_without_an_end_is_refused_soon() {
        let (_, identities) = identities();
        for noise in ["-> x\n\n", "-> x ", "x"] {
            let endless = AGE.chain(Cursor::new(noise.repeat(1 << 20)));
            let begin = std::time::Instant::now();
            let error = Unlocked::new(endless, &identities).map(drop).unwrap_err();
            assert!(matches!(error, UnlockError::Damaged), "{error}");
            assert!(begin.elapsed().as_secs() < 20, "{noise:?}: {:?}", begin.elapsed());
        }
    }

    #[test]
    fn a_sealed_file_of_headers_takes_no_longer_than_others() {
        let (secret, identities) = identities();
        let mut file = sealed(&secret, &vec![0; 1 << 20], false);
        let head_len = Chunks::new(&file[..]).unwrap().head_len() as usize;
        let header = [&file[head_len..head_len + 20], b"none"].concat();
        file.truncate(head_len);
        file.extend(header.repeat(200_000));
        let begin = std::time::Instant::now();
        let mut unlocked = Unlocked::new(&file[..], &identities).unwrap();
        unlocked.leave_out_damage();
        assert_eq!(unlocked.read_to_end(&mut Vec::new()).unwrap(), 0);
        let tail = unlocked.sealed().unwrap().tail.unwrap();
        assert_eq!((tail.at, tail.len), (head_len as u64, (file.len() - head_len) as u64));
        assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
    }

    #[test]
    fn a_passphrase_is_not_tried() {
        let (_, identities) = identities();
        let mut passphrase = age::scrypt::Recipient::new("swordfish".to_owned().into());
        passphrase.set_work_factor(2);
        let file = encrypted(&passphrase, b"packets");
        for identities in [&identities, &Identities::default()] {
            let error = Unlocked::new(&file[..], identities).map(drop).unwrap_err();
            assert!(matches!(error, UnlockError::Passphrase), "{error}");
        }
    }

    #[test]
    fn a_sealed_key_that_is_none_is_damage() {
        let (secret, identities) = identities();
        for key in [&b"short"[..], &[7; 100_000]] {
            let mut sealed_key = age(&secret, key);
            for is_changed in [false, true] {
                if is_changed {
                    *sealed_key.last_mut().unwrap() ^= 1;
                }
                let sealed_key = sealed_key.clone();
                let head = Head { format: Format::Pcapng, id: [1; 16], comments: Vec::new(), sealed_key };
                let error = Unlocked::new(&head.to_bytes()[..], &identities).map(drop).unwrap_err();
                assert!(matches!(error, UnlockError::Damaged), "{error}");
            }
        }
    }

    #[test]
    fn what_is_no_identity_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |content: &[u8]| {
            let path = folder.path().join("key");
            fs::write(&path, content).unwrap();
            let error = Identities::read(std::slice::from_ref(&path)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("identity {}: ", path.display())), "{error}");
            error
        };
        assert!(refused(b"# nothing\n").ends_with("there is no secret key in it"));
        assert!(refused(b"age1x\n").contains("no file with secret keys"));
        assert!(refused(AGE).contains("passphrase"));
        assert!(refused(b"-----BEGIN OPENSSH PRIVATE KEY-----\nx\n").contains("no private key of ssh"));
        let error = Identities::read(&["/nonexistent/key".into()]).unwrap_err();
        assert!(error.to_string().starts_with("identity /nonexistent/key: No such file"), "{error}");
    }

    fn identities() -> (x25519::Identity, Identities) {
        let secret = x25519::Identity::generate();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, format!("# a key\n{}\n", secret.to_string().expose_secret())).unwrap();
        (secret, Identities::read(&[path]).unwrap())
    }

    fn age(secret: &x25519::Identity, plain: &[u8]) -> Vec<u8> {
        encrypted(&secret.to_public(), plain)
    }

    fn encrypted(recipient: &dyn age::Recipient, plain: &[u8]) -> Vec<u8> {
        let encryptor = Encryptor::with_recipients(std::iter::once(recipient)).unwrap();
        let mut writer = encryptor.wrap_output(Vec::new()).unwrap();
        writer.write_all(plain).unwrap();
        writer.finish().unwrap()
    }

    fn sealed(secret: &x25519::Identity, plain: &[u8], is_complete: bool) -> Vec<u8> {
        let key = Key::new([7; Key::LEN]);
        let sealed_key = age(secret, key.bytes());
        let head = Head { format: Format::Pcapng, id: [1; 16], comments: Vec::new(), sealed_key };
        let mut file = head.to_bytes();
        let mut sealer = Sealer::new(&key, &file);
        sealer.seal(plain, &mut file);
        sealer.written();
        if is_complete {
            sealer.seal_last(&mut file);
        }
        file
    }
}
