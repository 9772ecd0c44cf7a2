#include "keys/http_client.h"

#include <curl/curl.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <new>
#include <system_error>
#include <utility>

#include "base/concat.h"
#include "base/environment.h"
#include "keys/pause.h"

// One transfer on curl's multi interface: curl_easy_perform() would look at a wish to stop once a second only, a multi handle can
// be woken.
namespace veturbo::keys {

namespace {

struct EasyCleanup {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct MultiCleanup {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};
using Easy = std::unique_ptr<CURL, EasyCleanup>;
using Multi = std::unique_ptr<CURLM, MultiCleanup>;

template <typename Handle>
Handle made(Handle handle) {
  if (!handle) {
    throw std::bad_alloc();
  }
  return handle;
}

// Joins a transfer to the multi handle for as long as it lives.
class Attached {
 public:
  Attached(CURLM* multi, CURL* easy) : multi_(multi), easy_(easy) { curl_multi_add_handle(multi_, easy_); }
  ~Attached() { curl_multi_remove_handle(multi_, easy_); }
  Attached(const Attached&) = delete;
  Attached& operator=(const Attached&) = delete;

 private:
  CURLM* multi_;
  CURL* easy_;
};

class HeaderList {
 public:
  HeaderList() = default;
  ~HeaderList() { curl_slist_free_all(list_); }
  HeaderList(const HeaderList&) = delete;
  HeaderList& operator=(const HeaderList&) = delete;

  void append(const char* line) {
    curl_slist* const longer = curl_slist_append(list_, line);
    if (longer == nullptr) {
      throw std::bad_alloc();
    }
    list_ = longer;
  }
  curl_slist* get() const { return list_; }

 private:
  curl_slist* list_ = nullptr;
};

// Where a server has gone, OpenSSL's write raises SIGPIPE, which ends a program that does not expect it. curl would change the
// whole process's handler for that; this thread's mask is enough.
class SigpipeBlocked {
 public:
  SigpipeBlocked() {
    sigemptyset(&sigpipe_);
    sigaddset(&sigpipe_, SIGPIPE);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &sigpipe_, &before_);
  }
  ~SigpipeBlocked() {
    const timespec now{};
    while (!was_pending_ && sigtimedwait(&sigpipe_, nullptr, &now) < 0 && errno == EINTR) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  SigpipeBlocked(const SigpipeBlocked&) = delete;
  SigpipeBlocked& operator=(const SigpipeBlocked&) = delete;

 private:
  sigset_t sigpipe_;
  sigset_t before_;
  bool was_pending_ = false;
};

// The answer so far. Grows without leaving its old bytes behind.
struct Answer {
  explicit Answer(size_t most) : most(most) {}

  bool append(const char* bytes, size_t size) {
    if (size > most - used) {
      too_long = true;
      return false;
    }
    if (size > buffer.size() - used) {
      Secret larger(std::min(most, std::max(2 * buffer.size(), used + size)));
      std::copy_n(buffer.bytes().begin(), used, larger.bytes().begin());
      buffer = std::move(larger);
    }
    std::memcpy(buffer.bytes().data() + used, bytes, size);
    used += size;
    return true;
  }
  Secret take() {
    buffer.shrink(used);
    return std::move(buffer);
  }

  size_t most;
  size_t used = 0;
  bool too_long = false;
  Secret buffer = Secret(size_t{4096});
};

size_t take_bytes(char* bytes, size_t, size_t size, void* answer) {
  try {
    return static_cast<Answer*>(answer)->append(bytes, size) ? size : 0;
  } catch (const std::bad_alloc&) {
    return 0;  // through C no exception may pass
  }
}

template <typename Value>
void set(CURL* easy, CURLoption option, Value value) {
  const CURLcode result = curl_easy_setopt(easy, option, value);
  if (result != CURLE_OK) {
    throw HttpError(HttpError::Lasts::kYes, concat("libcurl refuses option ", option, ": ", curl_easy_strerror(result)));
  }
}

// Requests and answers pass through memory of curl's, which it frees as it is. Where somebody else has initialised curl before,
// it stays so.
void wipe_and_free(void* memory) {
  if (memory != nullptr) {
    OPENSSL_cleanse(memory, ::malloc_usable_size(memory));
    std::free(memory);  // NOLINT(cppcoreguidelines-owning-memory): what malloc gave, for curl
  }
}

void* wipe_and_resize(void* memory, size_t size) {
  void* const resized = std::malloc(size);  // NOLINT(cppcoreguidelines-owning-memory): curl frees it
  if (resized != nullptr && memory != nullptr) {
    std::memcpy(resized, memory, std::min(size, ::malloc_usable_size(memory)));
    wipe_and_free(memory);
  }
  return resized;
}

void initialize_curl() {
  static const CURLcode result =
      curl_global_init_mem(CURL_GLOBAL_DEFAULT, std::malloc, wipe_and_free, wipe_and_resize, ::strdup, std::calloc);
  if (result != CURLE_OK) {
    throw HttpError(HttpError::Lasts::kYes, concat("libcurl does not start: ", curl_easy_strerror(result)));
  }
}

// So OpenSSL wipes what it has deciphered, once it is read.
CURLcode wipe_plaintext(CURL*, void* context, void*) {
#ifdef SSL_OP_CLEANSE_PLAINTEXT
  SSL_CTX_set_options(static_cast<SSL_CTX*>(context), SSL_OP_CLEANSE_PLAINTEXT);
#endif
  return CURLE_OK;
}

void set_up(CURL* easy, const HttpRequest& request, const HttpLimits& limits, const HeaderList& headers) {
  set(easy, CURLOPT_URL, request.url.c_str());
  set(easy, CURLOPT_HTTPHEADER, headers.get());
  set(easy, CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
  set(easy, CURLOPT_FOLLOWLOCATION, 0L);
  set(easy, CURLOPT_NOSIGNAL, 1L);
  set(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(limits.to_connect.count()));
  set(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(limits.in_all.count()));
#if LIBCURL_VERSION_NUM >= 0x075700
  // A name that is still being looked up is not waited for when the transfer is given up.
  set(easy, CURLOPT_QUICK_EXIT, 1L);
#endif
  if (!request.unix_socket.empty()) {
    set(easy, CURLOPT_UNIX_SOCKET_PATH, request.unix_socket.c_str());
  }
  if (!request.unix_socket.empty() || request.proxy == Proxy::kNone) {
    set(easy, CURLOPT_PROXY, "");
  }
  set(easy, CURLOPT_SSL_VERIFYPEER, 1L);
  set(easy, CURLOPT_SSL_VERIFYHOST, 2L);
  set(easy, CURLOPT_SSLVERSION, long{CURL_SSLVERSION_TLSv1_2});
  curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, wipe_plaintext);  // refused by a curl that does TLS by another library
  // Only curl's own program reads the variable, the library does not.
  const std::string certificates(environment_variable("SSL_CERT_FILE"));
  if (!certificates.empty()) {
    set(easy, CURLOPT_CAINFO, certificates.c_str());
  }
  if (request.body) {
    set(easy, CURLOPT_POST, 1L);
    set(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body->size()));
    set(easy, CURLOPT_POSTFIELDS, request.body->bytes().data());
  }
}

// Throws. curl's own words only where they say more than its error number: they also tell milliseconds and the like, which no
// two runs share.
[[noreturn]] void fail(CURL* easy, CURLcode result, const char* details, const Answer& answer) {
  using enum HttpError::Lasts;
  switch (result) {
    case CURLE_COULDNT_CONNECT: {
      long code = 0;
      curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &code);
      throw HttpError(kMaybeNot, concat("no connection", code == 0 ? "" : ": ",
                                        code == 0 ? std::string() : std::generic_category().message(static_cast<int>(code))));
    }
    case CURLE_OPERATION_TIMEDOUT:
      throw HttpError(kMaybeNot, "no answer in time");
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
      throw HttpError(kMaybeNot, "the connection ended before the answer did");
    case CURLE_UNSUPPORTED_PROTOCOL:  // HTTP/0.9, which is any text at all
    case CURLE_WEIRD_SERVER_REPLY:
      throw HttpError(kYes, "the answer is not HTTP");
    case CURLE_WRITE_ERROR:
      throw HttpError(kYes, answer.too_long ? concat("the answer is longer than ", answer.most, " bytes") : "out of memory");
    default: {
      const bool may_pass =
          result == CURLE_COULDNT_RESOLVE_HOST || result == CURLE_COULDNT_RESOLVE_PROXY || result == CURLE_SSL_CONNECT_ERROR;
      throw HttpError(may_pass ? kMaybeNot : kYes, details[0] != '\0' ? details : curl_easy_strerror(result));
    }
  }
}

}  // namespace

void HttpRequest::add_header(std::string_view name, std::string_view value) {
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  if (std::any_of(value.begin(), value.end(), is_control)) {
    throw Error(ErrorKind::kInvalidArgument,
                concat("a line break or another control character cannot be sent in the header ", name));
  }
  Secret line(name.size() + 2 + value.size() + 1);  // ends with a NUL
  char* out = reinterpret_cast<char*>(line.bytes().data());
  out = std::copy(name.begin(), name.end(), out);
  *out++ = ':';
  *out++ = ' ';
  std::copy(value.begin(), value.end(), out);
  headers.push_back(std::move(line));
}

HttpResponse send(const HttpRequest& request, const std::stop_token& stop, const HttpLimits& limits) {
  throw_if_stopped(stop);
  initialize_curl();
  const SigpipeBlocked sigpipe_blocked;
  HeaderList headers;
  for (const Secret& line : request.headers) {
    headers.append(reinterpret_cast<const char*>(line.bytes().data()));  // add_header() has ended it with NUL
  }
  Answer answer(limits.response_bytes);
  char details[CURL_ERROR_SIZE] = "";
  const Multi multi = made(Multi(curl_multi_init()));
  const Easy easy = made(Easy(curl_easy_init()));
  set_up(easy.get(), request, limits, headers);
  set(easy.get(), CURLOPT_ERRORBUFFER, details);
  set(easy.get(), CURLOPT_WRITEFUNCTION, take_bytes);
  set(easy.get(), CURLOPT_WRITEDATA, static_cast<void*>(&answer));

  const Attached attached(multi.get(), easy.get());
  const std::stop_callback wake(stop, [&multi] { curl_multi_wakeup(multi.get()); });
  CURLMcode state = CURLM_OK;
  int running = 1;
  while (state == CURLM_OK) {
    throw_if_stopped(stop);
    state = curl_multi_perform(multi.get(), &running);
    if (running == 0) {
      break;
    }
    if (state == CURLM_OK) {
      state = curl_multi_poll(multi.get(), nullptr, 0, 1000, nullptr);
    }
  }
  if (state != CURLM_OK) {
    throw HttpError(HttpError::Lasts::kYes, concat("libcurl: ", curl_multi_strerror(state)));
  }
  int left = 0;
  const CURLMsg* const message = curl_multi_info_read(multi.get(), &left);
  if (message == nullptr || message->msg != CURLMSG_DONE) {
    throw HttpError(HttpError::Lasts::kYes, "libcurl ended a transfer without saying how");
  }
  if (message->data.result != CURLE_OK) {
    fail(easy.get(), message->data.result, details, answer);
  }
  long status = 0;
  curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &status);
  return {static_cast<int>(status), answer.take()};
}

}  // namespace veturbo::keys
