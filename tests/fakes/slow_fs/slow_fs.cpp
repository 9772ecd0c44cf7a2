// A far file system, played with a folder of this machine: the files of that folder, to be read only, each answer after a delay,
// and each open file with a rate of its own, as it is where every open file or connection is one stream from a server that has
// many. Requests of one stream wait at the same time, but share its rate; those of different streams do not know of each other.
//
// It runs until it gets SIGTERM or SIGINT or its parent ends, and then unmounts itself. It prints "mounted" once it is.
#define FUSE_USE_VERSION 34
#include <fcntl.h>
#include <fuse.h>
#include <fuse_lowlevel.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <mutex>
#include <optional>
#include <thread>

#include "log.h"
#include "settings.h"

namespace slow_fs {
namespace {

using Clock = std::chrono::steady_clock;

// More than can be waiting: requests that find no thread would wait for longer than they are meant to.
constexpr int kThreads = 256;

const Settings* settings;
const Log* log_;
std::atomic<uint64_t> next_handle = 1;
std::atomic<int> reads_under_way = 0;

Clock::duration seconds(double count) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(count));
}

// An open file.
class Stream {
 public:
  explicit Stream(int fd) : fd_(fd) {}
  ~Stream() { ::close(fd_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  int fd() const { return fd_; }
  uint64_t number() const { return number_; }

  // When an answer of so many bytes to what is asked now has come.
  Clock::time_point arrival(uint64_t bytes) {
    const double seconds_each = settings->bytes_per_second > 0 ? 1 / settings->bytes_per_second : 0;
    std::lock_guard lock(mutex_);
    free_at_ =
        std::max(free_at_, Clock::now() + seconds(settings->delay.count())) + seconds(static_cast<double>(bytes) * seconds_each);
    return free_at_;
  }

 private:
  const int fd_;
  const uint64_t number_ = next_handle++;
  std::mutex mutex_;
  Clock::time_point free_at_;
};

Stream& stream_of(const fuse_file_info* info) {
  return *reinterpret_cast<Stream*>(info->fh);
}

std::string in_source(const char* path) {
  return settings->source + path;
}

int get_attributes(const char* path, struct stat* out, fuse_file_info*) {
  return ::lstat(in_source(path).c_str(), out) == 0 ? 0 : -errno;
}

int read_directory(const char* path, void* buffer, fuse_fill_dir_t fill, off_t, fuse_file_info*, fuse_readdir_flags) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(in_source(path), error)) {
    fill(buffer, entry.path().filename().c_str(), nullptr, 0, fuse_fill_dir_flags{});
  }
  return -error.value();
}

int open_file(const char* path, fuse_file_info* info) {
  if ((info->flags & O_ACCMODE) != O_RDONLY) {
    return -EROFS;
  }
  std::this_thread::sleep_for(settings->delay);
  const int fd = ::open(in_source(path).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return -errno;
  }
  auto* const stream = new Stream(fd);
  info->fh = reinterpret_cast<uint64_t>(stream);
  log_->opened(path, stream->number(), (info->flags & O_DIRECT) != 0);
  return 0;
}

int read_file(const char* path, char* buffer, size_t size, off_t offset, fuse_file_info* info) {
  const int at_once = ++reads_under_way;
  Stream& stream = stream_of(info);
  ssize_t got = ::pread(stream.fd(), buffer, size, offset);
  const int code = errno;
  std::this_thread::sleep_until(stream.arrival(static_cast<uint64_t>(std::max<ssize_t>(got, 0))));
  log_->read(path, stream.number(), static_cast<uint64_t>(offset), size, at_once);
  --reads_under_way;
  if (got >= 0 && settings->fail_from && static_cast<uint64_t>(offset + got) > *settings->fail_from) {
    return -EIO;
  }
  return got < 0 ? -code : static_cast<int>(got);
}

int release_file(const char*, fuse_file_info* info) {
  delete &stream_of(info);
  return 0;
}

void* start(fuse_conn_info* connection, fuse_config* config) {
  connection->max_read = settings->max_read;
  connection->max_background = settings->max_background;
  connection->congestion_threshold = settings->max_background;
  config->use_ino = 1;
  config->kernel_cache = settings->keep_cache ? 1 : 0;
  config->attr_timeout = config->entry_timeout = 60;
  return nullptr;
}

constexpr fuse_operations make_operations() {
  fuse_operations operations = {};
  operations.init = start;
  operations.getattr = get_attributes;
  operations.readdir = read_directory;
  operations.open = open_file;
  operations.read = read_file;
  operations.release = release_file;
  return operations;
}

void serve(fuse_session* session) {
  fuse_buf request = {};
  for (;;) {
    const int got = fuse_session_receive_buf(session, &request);
    if (got == -EINTR) {
      continue;
    }
    if (got <= 0) {
      return;  // unmounted
    }
    fuse_session_process_buf(session, &request);
  }
}

int run(int argc, char** argv) {
  const Settings parsed = parse_settings(argc, argv);
  const Log log(parsed.log);
  settings = &parsed;
  log_ = &log;

  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);

  const std::string options = "-omax_read=" + std::to_string(parsed.max_read) + ",fsname=slow_fs";
  const char* const arguments[] = {argv[0], options.c_str()};
  fuse_args args = FUSE_ARGS_INIT(2, const_cast<char**>(arguments));
  static constexpr fuse_operations kOperations = make_operations();
  fuse* const file_system = fuse_new(&args, &kOperations, sizeof kOperations, nullptr);
  if (file_system == nullptr || fuse_mount(file_system, parsed.mountpoint.c_str()) != 0) {
    return 1;  // libfuse has said why
  }
  std::puts("mounted");
  std::fflush(stdout);
  for (int i = 0; i < kThreads; ++i) {
    std::thread(serve, fuse_get_session(file_system)).detach();
  }
  int signal = 0;
  ::sigwait(&ends, &signal);
  fuse_unmount(file_system);
  std::_Exit(0);  // without waiting for the threads: what was asked last is answered with ENOTCONN
}

}  // namespace
}  // namespace slow_fs

int main(int argc, char** argv) {
  try {
    return slow_fs::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "slow_fs: %s\n", error.what());
    return 2;
  }
}
