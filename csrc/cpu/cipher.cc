#include "cpu/cipher.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "plan.h"

namespace seedbed {
namespace {

constexpr uint64_t kBlock = 1024;                // elements; the staged words stay in the L1 cache
constexpr uint64_t kInline = uint64_t{1} << 15;  // below this a helper costs more than it saves
constexpr uint64_t kMaxTask = uint64_t{1} << 21;
constexpr uint64_t kTasksPerThread = 8;
constexpr const char* kNames[4] = {"k0", "k1", "c0", "c1"};

// Whether a pointer may be read as one to words.
bool aligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % alignof(uint32_t) == 0;
}

// The results' dims and how each operand steps along them, adjacent dims merged where every operand
// steps through both as through one. The last step is 0 or 1.
class Steps {
 public:
  explicit Steps(const CipherCall& call) : dims(call.dims) {
    for (int i = 0; i < 4; ++i) strides[i] = strides_of(call.operands[i], kNames[i]);
    for (size_t d = dims.size(); d-- > 1;) {
      bool merge = true;
      for (const auto& s : strides) merge = merge && s[d - 1] == s[d] * dims[d];
      if (!merge) continue;
      dims[d - 1] *= dims[d];
      dims.erase(dims.begin() + static_cast<int64_t>(d));
      for (auto& s : strides) s.erase(s.begin() + static_cast<int64_t>(d) - 1);
    }
  }

  std::vector<uint64_t> dims;
  std::vector<uint64_t> strides[4];

 private:
  std::vector<uint64_t> strides_of(const CipherOperand& operand, const char* name) const {
    std::vector<uint64_t> found(dims.size(), 0);
    if (operand.dims.empty()) return found;
    if (operand.dims.size() != dims.size()) {
      throw InvalidPlan("operand `" + std::string(name) + "` must have no dims or " +
                        std::to_string(dims.size()) + ", got " +
                        std::to_string(operand.dims.size()));
    }
    uint64_t stride = 1;
    for (size_t d = dims.size(); d-- > 0;) {
      const uint64_t extent = operand.dims[d];
      if (extent != 1 && extent != dims[d]) {
        throw InvalidPlan("dim " + std::to_string(d) + " of operand `" + std::string(name) +
                          "` must be 1 or " + std::to_string(dims[d]) + ", got " +
                          std::to_string(extent));
      }
      if (extent != 1) found[d] = stride;
      stride *= extent;
    }
    return found;
  }
};

class CipherRunner : public TaskRunner {
 public:
  CipherRunner(const KernelTable& kernels, const CipherCall& call, const Steps& steps,
               uint64_t elements, uint64_t task_elements)
      : kernels_(kernels), call_(call), steps_(steps), elements_(elements),
        task_elements_(task_elements), coordinates_(steps.dims.size()) {
    for (int i = 0; i < 4; ++i) {
      const auto& strides = steps.strides[i];
      constant_[i] = std::all_of(strides.begin(), strides.end(), [](uint64_t s) { return s == 0; });
      direct_[i] = strides.size() == 1 && strides[0] == 1 && aligned(call.operands[i].words);
      if (!constant_[i]) continue;
      uint32_t word;
      std::memcpy(&word, call.operands[i].words, sizeof word);
      std::fill_n(staged_[i], std::min(kBlock, elements), word);
    }
  }

  void run(uint64_t task) override {
    const uint64_t end = std::min((task + 1) * task_elements_, elements_);
    for (uint64_t at = task * task_elements_; at < end; at += kBlock) {
      block(at, std::min(kBlock, end - at));
    }
  }

 private:
  void block(uint64_t at, uint64_t n) {
    const uint32_t* in[4];
    for (int i = 0; i < 4; ++i) {
      in[i] = direct_[i] ? static_cast<const uint32_t*>(call_.operands[i].words) + at : staged_[i];
      if (!direct_[i] && !constant_[i]) gather(i, at, n);
    }
    char* const first = static_cast<char*>(call_.first) + at * sizeof(uint32_t);
    char* const second = static_cast<char*>(call_.second) + at * sizeof(uint32_t);
    const bool straight = aligned(first) && aligned(second);
    uint32_t* const o0 = straight ? reinterpret_cast<uint32_t*>(first) : results_[0];
    uint32_t* const o1 = straight ? reinterpret_cast<uint32_t*>(second) : results_[1];
    kernels_.derive(n, in[0], in[1], in[2], in[3], o0, o1);
    if (straight) return;
    std::memcpy(first, o0, n * sizeof *o0);
    std::memcpy(second, o1, n * sizeof *o1);
  }

  // staged_[i][j] = the operand's word for element at + j.
  void gather(int i, uint64_t at, uint64_t n) {
    const std::vector<uint64_t>&dims = steps_.dims, &strides = steps_.strides[i];
    const size_t last = dims.size() - 1;
    uint64_t rest = at, from = 0;
    for (size_t d = dims.size(); d-- > 0; rest /= dims[d]) {
      coordinates_[d] = rest % dims[d];
      from += coordinates_[d] * strides[d];
    }
    const char* const words = static_cast<const char*>(call_.operands[i].words);
    for (uint64_t done = 0; done < n;) {  // along the last dim at a time
      const uint64_t run = std::min(n - done, dims[last] - coordinates_[last]);
      uint32_t* const to = staged_[i] + done;
      std::memcpy(to, words + from * sizeof *to, (strides[last] == 0 ? 1 : run) * sizeof *to);
      if (strides[last] == 0) std::fill_n(to + 1, run - 1, *to);
      done += run;
      from += run * strides[last];
      coordinates_[last] += run;
      for (size_t d = last; d > 0 && coordinates_[d] == dims[d]; --d) {
        from += strides[d - 1] - strides[d] * dims[d];
        coordinates_[d] = 0;
        ++coordinates_[d - 1];
      }
    }
  }

  const KernelTable& kernels_;
  const CipherCall& call_;
  const Steps& steps_;
  const uint64_t elements_;
  const uint64_t task_elements_;
  std::vector<uint64_t> coordinates_;
  bool constant_[4];
  bool direct_[4];
  uint32_t staged_[4][kBlock];
  uint32_t results_[2][kBlock];
};

}  // namespace

void run_cipher(const KernelTable& kernels, const CipherCall& call, Pool& pool) {
  uint64_t elements = 1;
  for (const uint64_t dim : call.dims) elements = checked_product(elements, dim, "elements");
  checked_product(elements, sizeof(uint32_t), "bytes");
  const Steps steps(call);
  if (elements == 0) return;
  advise_huge_pages(call.first, elements * sizeof(uint32_t));
  advise_huge_pages(call.second, elements * sizeof(uint32_t));
  const bool alone = elements < kInline;
  const uint64_t threads =
      alone ? 1 : 1 + static_cast<uint64_t>(std::max<int64_t>(0, pool.helpers()));
  const uint64_t share = (elements / (threads * kTasksPerThread) + kBlock - 1) / kBlock * kBlock;
  const uint64_t each = std::clamp(share, kInline, kMaxTask);
  run_tasks((elements + each - 1) / each, threads, pool,
            [&] { return std::make_unique<CipherRunner>(kernels, call, steps, elements, each); });
}

}  // namespace seedbed
