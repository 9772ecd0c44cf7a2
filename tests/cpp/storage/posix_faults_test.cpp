// Each system call of a POSIX read or save fails in turn. What must come out is the right bytes or an Error, the old file or the
// new one, and nothing beside it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <new>

#include "storage/posix_readable_file.h"
#include "storage/posix_writable_file.h"
#include "testing/errors.h"
#include "testing/memory_files.h"
#include "testing/temporary_directory.h"

namespace veturbo::storage {
namespace {

using testing::error_of;
using testing::pattern;
using testing::read_text;
using testing::TemporaryDirectory;
using testing::write_text;

// Which calls fail, and how. A table of functions holds no state, so it stands here.
struct Fault {
  int code = 0;
  int from = 1;           // the how manieth call is the first to fail
  int times = INT32_MAX;  // how many fail
};
std::map<std::string, Fault> faults;
std::map<std::string, int> counts;
size_t most_bytes = SIZE_MAX;  // of one transfer

bool fails(const std::string& call) {
  const int count = ++counts[call];
  const auto found = faults.find(call);
  if (found == faults.end() || count < found->second.from || count - found->second.from >= found->second.times) {
    return false;
  }
  errno = found->second.code;
  return true;
}

const SystemCalls kFaultyCalls = {
    .open = [](const char* path, int flags, mode_t mode) { return fails("open") ? -1 : ::open(path, flags, mode); },
    .statx = ::statx,
    .pread = [](int fd, void* buffer, size_t count, off_t offset) -> ssize_t {
      return fails("pread") ? -1 : ::pread(fd, buffer, std::min(count, most_bytes), offset);
    },
    .preadv = ::preadv,
    .pwrite = [](int fd, const void* buffer, size_t count, off_t offset) -> ssize_t {
      return fails("pwrite") ? -1 : ::pwrite(fd, buffer, std::min(count, most_bytes), offset);
    },
    .fallocate = [](int fd, int mode, off_t offset,
                    off_t length) { return fails("fallocate") ? -1 : ::fallocate(fd, mode, offset, length); },
    .ftruncate = [](int fd, off_t length) { return fails("ftruncate") ? -1 : ::ftruncate(fd, length); },
    .fchmod = [](int fd, mode_t mode) { return fails("fchmod") ? -1 : ::fchmod(fd, mode); },
    .flock = [](int fd, int operation) { return fails("flock") ? -1 : ::flock(fd, operation); },
    .fsync = [](int fd) { return fails("fsync") ? -1 : ::fsync(fd); },
    .close =
        [](int fd) {
          ::close(fd);  // Linux closes it also where it reports a failure
          return fails("close") ? -1 : 0;
        },
    .rename = [](const char* from, const char* to) { return fails("rename") ? -1 : ::rename(from, to); },
    .unlink = [](const char* path) { return fails("unlink") ? -1 : ::unlink(path); },
};

class PosixFaults : public ::testing::Test {
 protected:
  PosixFaults() {
    faults.clear();
    counts.clear();
    most_bytes = SIZE_MAX;
    descriptors_ = testing::open_descriptors();
  }
  ~PosixFaults() override { EXPECT_EQ(testing::open_descriptors(), descriptors_) << "a descriptor was left open"; }

  // Saves "new content" over the target and gives the warnings.
  std::vector<std::string> save() const {
    PosixWritableFile file("uri", target_, kNew.size(), kFaultyCalls);
    file.write_at(0, std::as_bytes(std::span(kNew)));
    file.commit();
    return file.warnings();
  }

  const std::string kNew = "new content";
  TemporaryDirectory directory_;
  std::string target_ = directory_ / "file";
  size_t descriptors_ = 0;
};

TEST_F(PosixFaults, ASaveForWhichThereIsNoMemoryLeavesNothing) {
  SystemCalls calls = kFaultyCalls;
  calls.fallocate = [](int, int, off_t, off_t) -> int { throw std::bad_alloc(); };
  calls.ftruncate = [](int, off_t) -> int { throw std::bad_alloc(); };
  EXPECT_THROW(PosixWritableFile("uri", target_, kNew.size(), calls), std::bad_alloc);
  EXPECT_TRUE(directory_.names().empty());
}

struct Case {
  std::string call;
  int code;
  std::string cause;
  int from = 1;
};

class SaveFails : public PosixFaults, public ::testing::WithParamInterface<Case> {};

TEST_P(SaveFails, AndLeavesTheOldFileAsItWas) {
  write_text(target_, "old content");
  const Case& fault = GetParam();
  faults[fault.call] = {.code = fault.code, .from = fault.from};
  const Error error = error_of([&] { save(); });
  EXPECT_EQ(error.kind(), ErrorKind::kIo);
  EXPECT_EQ(error.code(), fault.code);
  EXPECT_EQ(error.file(), "uri");
  EXPECT_EQ(error.cause(), fault.call == "open" ? "cannot create a file in " + directory_.path() + fault.cause : fault.cause);
  EXPECT_EQ(read_text(target_), "old content");
  EXPECT_EQ(directory_.names(), std::set<std::string>{"file"});
}

INSTANTIATE_TEST_SUITE_P(
    Calls, SaveFails,
    ::testing::Values(Case{"open", EACCES, ": Permission denied"}, Case{"open", EMFILE, ": Too many open files"},
                      Case{"fallocate", ENOSPC, "cannot reserve 11 bytes: No space left on device"},
                      Case{"pwrite", ENOSPC, "write: No space left on device"}, Case{"pwrite", EIO, "write: Input/output error"},
                      Case{"fsync", EIO, "fsync: Input/output error"}, Case{"close", EDQUOT, "close: Disk quota exceeded"},
                      Case{"rename", EIO, "rename: Input/output error"}),
    [](const auto& info) { return info.param.call + std::to_string(info.param.code); });

TEST_F(PosixFaults, InterruptedAndShortTransfersAreGoneOnWith) {
  most_bytes = 3;
  for (const char* call : {"open", "pread", "pwrite", "fallocate", "flock", "fsync"}) {
    faults[call] = {.code = EINTR, .from = 1, .times = 2};
  }
  EXPECT_TRUE(save().empty());
  EXPECT_EQ(read_text(target_), kNew);
  const auto file = PosixReadableFile::open("uri", target_, DirectIo::kNever, kFaultyCalls);
  std::string out(kNew.size(), ' ');
  file->read_at(0, std::as_writable_bytes(std::span(out)));
  EXPECT_EQ(out, kNew);
}

TEST_F(PosixFaults, AnInterruptedCloseHasClosed) {
  faults["close"] = {.code = EINTR};
  EXPECT_TRUE(save().empty());
  EXPECT_EQ(read_text(target_), kNew);
}

TEST_F(PosixFaults, AWriteOfNothingIsAnError) {
  most_bytes = 0;
  const Error error = error_of([&] { save(); });
  EXPECT_EQ(error.code(), EIO);
  EXPECT_EQ(error.offset(), 0U);
}

TEST_F(PosixFaults, AReadThatFailsNamesItsOffset) {
  write_text(target_, std::string(100, 'x'));
  most_bytes = 10;
  faults["pread"] = {.code = EIO, .from = 3};
  const auto file = PosixReadableFile::open("uri", target_, DirectIo::kNever, kFaultyCalls);
  std::vector<std::byte> out(60);
  EXPECT_STREQ(error_of([&] { file->read_at(5, out); }).what(), "uri: read: Input/output error (at byte 25)");
}

TEST_F(PosixFaults, AFileThatShrinksIsAnErrorAndNeverGarbage) {
  write_text(target_, std::string(100, 'x'));
  const auto file = PosixReadableFile::open("uri", target_, DirectIo::kNever, kFaultyCalls);
  std::filesystem::resize_file(target_, 40);
  std::vector<std::byte> out(60);
  EXPECT_STREQ(error_of([&] { file->read_at(20, out); }).what(),
               "uri: the file ends before its 100 bytes: it was cut short while it was read (at byte 40)");
}

TEST_F(PosixFaults, SpaceThatCannotBeReservedIsOnlySet) {
  faults["fallocate"] = {.code = EOPNOTSUPP};
  EXPECT_TRUE(save().empty());
  EXPECT_EQ(read_text(target_), kNew);
}

TEST_F(PosixFaults, WhereNoSizeCanBeSetTheFileIsWrittenInOrderWithOneWarning) {
  faults["fallocate"] = {.code = EOPNOTSUPP};
  faults["ftruncate"] = {.code = ENOSYS};
  PosixWritableFile file("uri", target_, kNew.size(), kFaultyCalls);
  EXPECT_EQ(file.traits().run_size, kInOrder);
  EXPECT_EQ(file.traits().parallelism, 1);
  file.write_at(0, std::as_bytes(std::span(kNew)));
  file.commit();
  EXPECT_EQ(read_text(target_), kNew);
  ASSERT_EQ(file.warnings().size(), 1U);
  EXPECT_EQ(
      file.warnings()[0],
      "uri: this file system does not let a file's size be set beforehand: it is written in order, without parallel writes");
}

TEST_F(PosixFaults, WhereNothingIsRenamedTheFileIsCopiedWithOneWarning) {
  for (const int code : {ENOSYS, EOPNOTSUPP, EPERM, EXDEV}) {
    write_text(target_, "an old content that is longer than the new one");
    faults["rename"] = {.code = code};
    const std::vector<std::string> warnings = save();
    ASSERT_EQ(warnings.size(), 1U);
    EXPECT_TRUE(warnings[0].starts_with("uri: this file system does not rename: ")) << warnings[0];
    EXPECT_EQ(read_text(target_), kNew);
    EXPECT_EQ(directory_.names(), std::set<std::string>{"file"});
  }
}

TEST_F(PosixFaults, WhereTheCopyFailsTheWholeFileIsKept) {
  write_text(target_, "old content");
  faults["rename"] = {.code = ENOSYS};
  faults["pwrite"] = {.code = ENOSPC, .from = 2};  // the first is the save itself
  const Error error = error_of([&] { save(); });
  EXPECT_EQ(error.code(), ENOSPC);
  std::set<std::string> names = directory_.names();
  names.erase("file");
  ASSERT_EQ(names.size(), 1U);
  const std::string kept = directory_ / *names.begin();
  EXPECT_EQ(error.cause(), "write: No space left on device; the whole file was kept as " + kept);
  EXPECT_EQ(read_text(kept), kNew);
}

TEST_F(PosixFaults, AFileThatWasKeptIsNotTakenForAbandoned) {
  write_text(target_, "old content");
  faults["rename"] = {.code = EPERM, .times = 1};
  faults["pwrite"] = {.code = ENOSPC, .from = 2};
  const Error error = error_of([&] { save(); });
  const std::string kept = error.cause().substr(error.cause().find(directory_.path()));
  EXPECT_TRUE(kept.ends_with(".veturboio-kept")) << kept;
  faults.clear();
  save();
  EXPECT_EQ(read_text(kept), kNew);
}

constexpr char kAbandoned[] = ".file.0123456789abcdef.veturboio-tmp";

TEST_F(PosixFaults, WhatAKilledSaveLeftTheNextOneRemoves) {
  write_text(directory_ / kAbandoned, "half a file");
  write_text(directory_ / ".file.00000000ffffffff.veturboio-tmp", "");
  PosixWritableFile file("uri", target_, kNew.size());
  EXPECT_EQ(directory_.names().size(), 1U) << "it may have taken the space that is needed now";
  file.write_at(0, std::as_bytes(std::span(kNew)));
  file.commit();
  EXPECT_EQ(directory_.names(), std::set<std::string>{"file"});
}

TEST_F(PosixFaults, WhatOnlyLooksLikeItStays) {
  std::set<std::string> names = {".file.0123456789abcde.veturboio-tmp",   ".file.0123456789abcdef0.veturboio-tmp",
                                 ".file.0123456789abcdeg.veturboio-tmp",  ".files.0123456789abcdef.veturboio-tmp",
                                 "file.0123456789abcdef.veturboio-tmp",   ".file.0123456789abcdef.veturboio-kept",
                                 ".file.0123456789abcdef.veturboio-tmp2", ".file..0123456789abcdef.veturboio-tmp"};
  for (const std::string& name : names) {
    write_text(directory_ / name, "somebody's");
  }
  std::filesystem::create_directory(directory_ / kAbandoned);
  std::filesystem::create_symlink("elsewhere", directory_ / ".file.ffffffffffffffff.veturboio-tmp");
  names.insert({"file", kAbandoned, ".file.ffffffffffffffff.veturboio-tmp"});
  save();
  EXPECT_EQ(directory_.names(), names);
}

TEST_F(PosixFaults, ASaveThatIsUnderWayIsNotTakenForAbandoned) {
  PosixWritableFile first("uri", target_, kNew.size());
  first.write_at(0, std::as_bytes(std::span(kNew)));
  save();
  EXPECT_EQ(directory_.names().size(), 2U);
  first.commit();
  EXPECT_EQ(directory_.names(), std::set<std::string>{"file"});
  EXPECT_EQ(read_text(target_), kNew);
}

// Until it has its name: it is closed before.
TEST_F(PosixFaults, ASaveIsNotTakenForAbandonedWhileItEnds) {
  SystemCalls calls = system_calls();
  static std::string target;
  target = target_;
  calls.rename = [](const char* from, const char* to) {
    PosixWritableFile("uri", target, 1);
    return ::rename(from, to);
  };
  PosixWritableFile file("uri", target_, kNew.size(), calls);
  file.write_at(0, std::as_bytes(std::span(kNew)));
  file.commit();
  EXPECT_EQ(read_text(target_), kNew);
}

TEST_F(PosixFaults, WhatIsRemovedBeforeItWasLockedIsMadeAnew) {
  SystemCalls calls = system_calls();
  calls.flock = [](int fd, int operation) {
    if (++counts["flock"] <= 2) {
      std::filesystem::remove(std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd)));
    }
    return ::flock(fd, operation);
  };
  PosixWritableFile file("uri", target_, kNew.size(), calls);
  file.write_at(0, std::as_bytes(std::span(kNew)));
  file.commit();
  EXPECT_EQ(counts["flock"], 3);
  EXPECT_EQ(directory_.names(), std::set<std::string>{"file"});
}

TEST_F(PosixFaults, WhereNothingCanBeLockedNothingIsRemoved) {
  write_text(directory_ / kAbandoned, "half a file");
  for (const int code : {ENOLCK, EOPNOTSUPP, ENOSYS}) {
    faults["flock"] = {.code = code};
    EXPECT_TRUE(save().empty());
    EXPECT_EQ(directory_.names(), (std::set<std::string>{"file", kAbandoned}));
  }
}

TEST_F(PosixFaults, AFileSystemThatDoesNotSyncIsWarnedOf) {
  faults["fsync"] = {.code = EINVAL};
  const std::vector<std::string> warnings = save();
  EXPECT_EQ(warnings.size(), 2U);  // of the file and of the directory
  EXPECT_EQ(warnings[0], "uri: this file system does not sync the file: after a power failure the save may be lost");
  EXPECT_EQ(read_text(target_), kNew);
}

TEST_F(PosixFaults, ADirectoryThatCannotBeSyncedIsWarnedOf) {
  faults["fsync"] = {.code = EIO, .from = 2};
  EXPECT_EQ(save(), std::vector<std::string>{
                        "uri: the directory could not be synced: after a power failure the old file may stand under the name"});
  EXPECT_EQ(read_text(target_), kNew);
}

TEST_F(PosixFaults, AModeThatCannotBeKeptIsWarnedOf) {
  write_text(target_, "old");
  faults["fchmod"] = {.code = EPERM};
  EXPECT_EQ(save().size(), 1U);
  EXPECT_EQ(read_text(target_), kNew);
}

mode_t mode_of(const std::string& path) {
  struct stat info = {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0);
  return info.st_mode & 07777;
}

TEST_F(PosixFaults, ANewFileHasTheModeThatTheUmaskLeaves) {
  const mode_t before = ::umask(027);
  save();
  ::umask(before);
  EXPECT_EQ(mode_of(target_), 0640U);
}

TEST_F(PosixFaults, AReplacedFileKeepsItsMode) {
  write_text(target_, "old");
  for (const mode_t mode : {0600, 0644, 0666, 0755}) {
    ASSERT_EQ(::chmod(target_.c_str(), mode), 0);
    save();
    EXPECT_EQ(mode_of(target_), mode);
  }
}

TEST_F(PosixFaults, SymbolicLinksAreFollowed) {
  write_text(directory_ / "real", "old");
  std::filesystem::create_directory(directory_ / "links");
  std::filesystem::create_symlink("../real", directory_ / "links/first");
  std::filesystem::create_symlink("links/first", target_);
  save();
  EXPECT_EQ(read_text(directory_ / "real"), kNew);
  EXPECT_TRUE(std::filesystem::is_symlink(target_));
  std::filesystem::remove(directory_ / "real");
  save();  // dangling now
  EXPECT_EQ(read_text(directory_ / "real"), kNew);
}

TEST_F(PosixFaults, LinksThatGoInCirclesAreAnError) {
  std::filesystem::create_symlink("file", target_);
  EXPECT_EQ(error_of([&] { save(); }).code(), ELOOP);
}

TEST_F(PosixFaults, WhatIsNoRegularFileIsRefused) {
  std::filesystem::create_directory(target_);
  EXPECT_EQ(error_of([&] { save(); }).code(), EISDIR);
  EXPECT_EQ(error_of([&] { PosixReadableFile::open("uri", target_, DirectIo::kNever); }).code(), EISDIR);
  std::filesystem::remove(target_);
  ASSERT_EQ(::mkfifo(target_.c_str(), 0600), 0);
  EXPECT_EQ(error_of([&] { save(); }).cause(), "not a regular file: saving would replace it");
  EXPECT_EQ(error_of([&] { PosixReadableFile::open("uri", target_, DirectIo::kNever); }).cause(), "not a regular file");
  EXPECT_EQ(error_of([&] { PosixWritableFile("uri", "/dev/null", 0); }).cause(), "not a regular file: saving would replace it");
}

TEST_F(PosixFaults, AMissingDirectoryIsNamed) {
  target_ = directory_ / "missing/file";
  const Error error = error_of([&] { save(); });
  EXPECT_EQ(error.code(), ENOENT);
  EXPECT_EQ(error.cause(), "there is no directory " + directory_ / "missing");
}

TEST_F(PosixFaults, TheLongestNameCanBeSaved) {
  target_ = directory_ / std::string(255, 'n');
  save();
  EXPECT_EQ(read_text(target_), kNew);
}

TEST_F(PosixFaults, AFileThatIsReadOnlyIsNotReplaced) {
  write_text(target_, "old");
  ASSERT_EQ(::chmod(target_.c_str(), 0444), 0);
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0777), 0);
  // As root everything may be written, so another user tries, in a process of its own. Paths above the directory may be closed to
  // that user: the child goes in before.
  const pid_t child = ::fork();
  if (child == 0) {
    constexpr uid_t kNobody = 65534;
    if (::chdir(directory_.path().c_str()) != 0 || (::geteuid() == 0 && ::setuid(kNobody) != 0)) {
      ::_exit(2);
    }
    target_ = "file";
    int code = 0;
    try {
      save();
    } catch (const Error& error) {
      code = error.code();
    }
    ::_exit(code == EACCES ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(read_text(target_), "old");
}

}  // namespace
}  // namespace veturbo::storage
