//! Torch's archives, written for tests: a zip of stored files, and the pickle in it.

/// An archive of these files, without checksums.
pub(crate) fn archive<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let (mut bytes, mut directory, mut count) = (Vec::new(), Vec::new(), 0u16);
    for (name, content) in files {
        let offset = bytes.len() as u32;
        let sizes = [[0; 4], (content.len() as u32).to_le_bytes(), (content.len() as u32).to_le_bytes()].concat();
        let name_len = (name.len() as u16).to_le_bytes();
        bytes.extend(
            [b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0", &sizes[..], &name_len, b"\0\0", name.as_bytes(), content].concat(),
        );
        directory.extend([b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0", &sizes[..], &name_len, &[0; 12]].concat());
        directory.extend([&offset.to_le_bytes(), name.as_bytes()].concat());
        count += 1;
    }
    let place = [(directory.len() as u32).to_le_bytes(), (bytes.len() as u32).to_le_bytes()].concat();
    let counts = [count.to_le_bytes(), count.to_le_bytes()].concat();
    [bytes, directory, [b"PK\x05\x06\0\0\0\0", &counts[..], &place, b"\0\0"].concat()].concat()
}

/// A tensor for `pickle`.
pub(crate) struct PickledTensor<'a> {
    pub(crate) name: &'a str,
    /// torch's class of its storage, such as `HalfStorage`.
    pub(crate) class: &'a str,
    pub(crate) shape: &'a [usize],
}

/// The pickle of a dictionary of contiguous tensors, each in the storage of its number; with `outer` under that key of
/// another dictionary.
pub(crate) fn pickle(tensors: &[PickledTensor], outer: Option<&str>) -> Vec<u8> {
    let mut bytes = b"\x80\x02".to_vec();
    if let Some(outer) = outer {
        bytes.push(b'}');
        text(&mut bytes, outer);
    }
    bytes.extend(b"ccollections\nOrderedDict\n)R");
    for (key, PickledTensor { name, class, shape }) in tensors.iter().enumerate() {
        text(&mut bytes, name);
        bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut bytes, "storage");
        bytes.extend(format!("ctorch\n{class}\n").bytes());
        text(&mut bytes, &key.to_string());
        text(&mut bytes, "cpu");
        integer(&mut bytes, shape.iter().product());
        bytes.extend(b"tQK\0");
        let strides: Vec<usize> = (1..=shape.len()).map(|at| shape[at..].iter().product()).collect();
        for sizes in [*shape, &strides] {
            bytes.push(b'(');
            sizes.iter().for_each(|size| integer(&mut bytes, *size));
            bytes.push(b't');
        }
        bytes.extend(b"\x89ccollections\nOrderedDict\n)RtRs");
    }
    bytes.extend(if outer.is_some() { &b"s."[..] } else { b"." });
    bytes
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(b'X');
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.bytes());
}

fn integer(bytes: &mut Vec<u8>, value: usize) {
    match i32::try_from(value) {
        Ok(value) => bytes.extend([&b"J"[..], &value.to_le_bytes()].concat()),
        Err(_) => bytes.extend([&b"\x8a\x08"[..], &(value as u64).to_le_bytes()].concat()),
    }
}
