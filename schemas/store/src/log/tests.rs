//! The log with interrupted writes, full disks and damage.

use proptest::prelude::*;

use super::*;

fn read_all(folder: &Path, from: u64) -> Vec<(u64, Vec<u8>)> {
    let mut reader = LogReader::open(folder, from).expect("opens");
    std::iter::from_fn(|| reader.next().expect("reads")).collect()
}

#[test]
fn only_one_writer() {
    let folder = tempfile::tempdir().expect("temp");
    let _writer = LogWriter::open(folder.path(), LogOptions::default()).expect("opens");
    assert!(matches!(LogWriter::open(folder.path(), LogOptions::default()), Err(LogError::InUse { .. })));
}

#[test]
fn a_full_log_refuses_and_space_comes_back() {
    let folder = tempfile::tempdir().expect("temp");
    let options = LogOptions { segment_bytes: 64, max_bytes: 200 };
    let mut writer = LogWriter::open(folder.path(), options).expect("opens");
    while writer.append(&[1; 30]).is_ok() {}
    let end = writer.next_position();
    assert!(writer.delete_before(end).expect("deletes") > 0);
    assert_eq!(writer.append(&[2; 30]).expect("has room"), end);
    writer.sync().expect("syncs");
    let name = writer.name().to_owned();
    drop(writer);
    let writer = LogWriter::open(folder.path(), options).expect("opens again");
    assert_eq!((writer.name(), writer.next_position()), (name.as_str(), end + 1));
}

#[test]
fn a_reader_follows_a_writer() {
    let folder = tempfile::tempdir().expect("temp");
    let mut writer =
        LogWriter::open(folder.path(), LogOptions { segment_bytes: 20, max_bytes: 1 << 20 }).expect("opens");
    let mut reader = LogReader::open(folder.path(), 0).expect("opens");
    for number in 0..50_u8 {
        assert_eq!(reader.next().expect("reads"), None);
        writer.append(&[number; 10]).expect("appends");
        writer.sync().expect("syncs");
        assert_eq!(reader.next().expect("reads"), Some((u64::from(number), vec![number; 10])));
    }
}

/// A file on a disk with `room` bytes left.
#[derive(Debug)]
struct FullDisk {
    file: File,
    room: usize,
    can_truncate: bool,
}

impl Write for FullDisk {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = bytes.len().min(self.room);
        if written == 0 {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.room -= written;
        self.file.write(&bytes[..written])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl SegmentFile for FullDisk {
    fn sync(&self) -> std::io::Result<()> {
        if self.room == 0 { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&mut self, end: u64) -> std::io::Result<()> {
        if self.can_truncate {
            self.file.truncate(end)
        } else {
            Err(std::io::ErrorKind::ReadOnlyFilesystem.into())
        }
    }
}

fn fill_disk(writer: &mut LogWriter, room: usize, can_truncate: bool) {
    let mut file = OpenOptions::new().write(true).open(&writer.segment).expect("opens");
    file.seek(SeekFrom::End(0)).expect("seeks");
    writer.file = Box::new(FullDisk { file, room, can_truncate });
}

#[test]
fn a_full_disk_loses_only_what_was_not_synced() {
    for room in 0..=56 {
        let folder = tempfile::tempdir().expect("temp");
        let mut writer = LogWriter::open(folder.path(), LogOptions::default()).expect("opens");
        writer.append(b"kept").expect("appends");
        writer.sync().expect("syncs");
        let mut reader = LogReader::open(folder.path(), 1).expect("opens");
        fill_disk(&mut writer, room, true);
        writer.append(&[1; 20]).expect("appends");
        writer.append(&[2; 20]).expect("appends");
        // The reader sees more of these records than the log has later.
        if let Err(source) = writer.flush() {
            writer.give_up(source);
        }
        while reader.next().expect("reads").is_some() {}
        writer.sync().expect_err("the disk is full");
        let next = writer.append(b"after").expect("has room");
        assert_eq!(next, 3, "no position is given out twice");
        writer.sync().expect("syncs");
        let all = vec![(0, b"kept".to_vec()), (3, b"after".to_vec())];
        assert_eq!(read_all(folder.path(), 0), all);
        assert_eq!(reader.next().expect("reads"), Some(all[1].clone()));
        drop(writer);
        let writer = LogWriter::open(folder.path(), LogOptions::default()).expect("opens again");
        assert_eq!((writer.next_position(), read_all(folder.path(), 0)), (4, all));
    }
}

#[test]
fn a_failed_append_fails_the_next_sync() {
    let folder = tempfile::tempdir().expect("temp");
    let mut writer = LogWriter::open(folder.path(), LogOptions::default()).expect("opens");
    fill_disk(&mut writer, 1000, true);
    writer.append(b"before").expect("appends");
    writer.append(&vec![1; BUFFER_BYTES]).expect_err("the disk is full");
    writer.append(b"between").expect("appends");
    writer.sync().expect_err("records are lost");
    writer.sync().expect("nothing is left to be lost");
    writer.append(b"after").expect("appends");
    writer.sync().expect("syncs");
    assert_eq!(read_all(folder.path(), 0), vec![(2, b"after".to_vec())]);
    assert_eq!(segments(folder.path()).expect("lists").len(), 1, "no empty segment stays");
}

#[test]
fn a_writer_that_cannot_truncate_refuses_records() {
    let folder = tempfile::tempdir().expect("temp");
    let mut writer = LogWriter::open(folder.path(), LogOptions::default()).expect("opens");
    writer.append(b"kept").expect("appends");
    writer.sync().expect("syncs");
    fill_disk(&mut writer, 10, false);
    writer.append(b"lost").expect("appends");
    writer.sync().expect_err("the disk is full");
    writer.append(b"after").expect_err("poisoned");
    writer.sync().expect_err("poisoned");
    drop(writer);
    let writer = LogWriter::open(folder.path(), LogOptions::default()).expect("opens again");
    assert_eq!((writer.next_position(), read_all(folder.path(), 0)), (1, vec![(0, b"kept".to_vec())]));
}

#[test]
fn damage_before_complete_frames_is_not_an_interrupted_write() {
    // The length, which then claims more than there is or nothing; the checksum; the payload.
    for (byte, value) in [(2, 0x20), (0, 0), (0, 1), (5, 0xff), (9, 0xff)] {
        let folder = tempfile::tempdir().expect("temp");
        let mut writer = LogWriter::open(folder.path(), LogOptions::default()).expect("opens");
        for record in [vec![1; 9], vec![2; 100], vec![3; 10_000]] {
            writer.append(&record).expect("appends");
        }
        writer.sync().expect("syncs");
        let last = writer.segment.clone();
        drop(writer);
        let mut bytes = std::fs::read(&last).expect("reads");
        let bad = MAGIC.len() + FRAME_HEAD + 9;
        bytes[bad + byte] = value;
        for truncated in [0, 5_000] {
            std::fs::write(&last, &bytes[..bytes.len() - truncated]).expect("writes");
            // With the last record truncated, no complete frame follows the damage.
            match LogWriter::open(folder.path(), LogOptions::default()) {
                Err(LogError::Damaged { path, offset }) => {
                    assert_eq!((truncated, path, offset), (0, last.clone(), bad as u64));
                }
                opened => {
                    assert_eq!((truncated, opened.expect("opens").next_position()), (5_000, 1))
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn an_interrupted_write_loses_only_incomplete_records(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..30),
        segment_bytes in 20_u64..200,
        cut in 0_usize..60,
        garbage in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let folder = tempfile::tempdir().expect("temp");
        let options = LogOptions { segment_bytes, max_bytes: 1 << 20 };
        let mut writer = LogWriter::open(folder.path(), options).expect("opens");
        for record in &records {
            writer.append(record).expect("appends");
        }
        writer.sync().expect("syncs");
        let last = writer.segment.clone();
        drop(writer);
        let mut bytes = std::fs::read(&last).expect("reads");
        bytes.truncate(bytes.len().saturating_sub(cut).max(MAGIC.len()));
        bytes.extend_from_slice(&garbage);
        std::fs::write(&last, bytes).expect("writes");
        let mut writer = LogWriter::open(folder.path(), options).expect("recovers");
        let kept = read_all(folder.path(), 0);
        let complete = usize::try_from(writer.next_position()).expect("small");
        prop_assert!(complete <= records.len());
        if cut == 0 {
            prop_assert_eq!(complete, records.len());
        }
        prop_assert_eq!(kept.len(), complete);
        for (position, (number, payload)) in kept.iter().enumerate() {
            prop_assert_eq!(*number, position as u64);
            prop_assert_eq!(payload, &records[position]);
        }
        writer.append(b"after").expect("appends");
        writer.sync().expect("syncs");
        prop_assert_eq!(read_all(folder.path(), complete as u64), vec![(complete as u64, b"after".to_vec())]);
    }
}
