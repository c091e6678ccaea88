//! Errors of the file system as the kernel's numbers.

use fuser::Errno;
use mfs::FsError;

/// The number that an application sees.
pub(crate) fn errno(error: &FsError) -> Errno {
    match error {
        FsError::NotFound => Errno::ENOENT,
        FsError::Exists => Errno::EEXIST,
        FsError::NotDirectory => Errno::ENOTDIR,
        FsError::IsDirectory => Errno::EISDIR,
        FsError::NotEmpty => Errno::ENOTEMPTY,
        FsError::NameTooLong => Errno::ENAMETOOLONG,
        FsError::NoSpace => Errno::ENOSPC,
        FsError::FileTooLarge => Errno::EFBIG,
        FsError::TooManyLinks => Errno::EMLINK,
        FsError::Invalid(_) => Errno::EINVAL,
        FsError::NotPermitted(_) => Errno::EPERM,
        FsError::SymbolicLink => Errno::ELOOP,
        FsError::ReadOnly => Errno::EROFS,
        FsError::Stale => Errno::ESTALE,
        FsError::Unsupported => Errno::EOPNOTSUPP,
        FsError::Corrupt(_) | FsError::Damaged | FsError::Disk(_) | FsError::CutOff => Errno::EIO,
    }
}
