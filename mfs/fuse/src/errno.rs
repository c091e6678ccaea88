//! Errors of the file system as the kernel's numbers.

use mfs::FsError;

use crate::transport::Errno;

/// The number that an application sees.
pub(crate) fn errno(error: &FsError) -> Errno {
    Errno(match error {
        FsError::NotFound => libc::ENOENT,
        FsError::Exists => libc::EEXIST,
        FsError::NotDirectory => libc::ENOTDIR,
        FsError::IsDirectory => libc::EISDIR,
        FsError::NotEmpty => libc::ENOTEMPTY,
        FsError::NameTooLong => libc::ENAMETOOLONG,
        FsError::NoSpace => libc::ENOSPC,
        FsError::FileTooLarge => libc::EFBIG,
        FsError::TooManyLinks => libc::EMLINK,
        FsError::Invalid(_) => libc::EINVAL,
        FsError::NotPermitted(_) => libc::EPERM,
        FsError::SymbolicLink => libc::ELOOP,
        FsError::ReadOnly => libc::EROFS,
        FsError::Stale => libc::ESTALE,
        FsError::Unsupported => libc::EOPNOTSUPP,
        FsError::NoXattr => libc::ENODATA,
        FsError::XattrTooLarge => libc::E2BIG,
        FsError::OutOfRange(_) => libc::ERANGE,
        FsError::Refused(_) => libc::EACCES,
        FsError::Corrupt(_) | FsError::Damaged | FsError::Disk(_) | FsError::CutOff => libc::EIO,
    })
}
