//! Reading structure out of arbitrary bytes. Beyond the end everything is zero, so that every
//! input means something and a short input means something short.

/// The rest of an input.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// At most `n` bytes.
    pub(crate) fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        head
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let head = self.bytes(N);
        array[..head.len()].copy_from_slice(head);
        array
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.u8() & 1 != 0
    }

    /// Below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.u16()) % n
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> [u8; N] {
        self.array()
    }

    /// Seconds since 1970, or any nonsense.
    pub(crate) fn time(&mut self) -> i64 {
        i64::from_le_bytes(self.number(0).to_le_bytes())
    }

    /// A number near something that matters: small, near a limit, near `hint`, or any.
    pub(crate) fn number(&mut self, hint: u64) -> u64 {
        let how = self.u8();
        let near = u64::from(how >> 3);
        match how & 7 {
            0 | 1 => near,
            2 | 3 => hint.wrapping_add(near),
            4 => hint.wrapping_sub(near),
            5 => u64::MAX - near,
            6 => (1 << (how >> 2)) - u64::from(self.u8() & 1),
            _ => self.u64(),
        }
    }
}
