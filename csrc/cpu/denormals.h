// XLA:CPU runs its programs with subnormal numbers flushed to zero, on every thread. The kernels
// must do the same to give the same bits, whoever calls them.
#ifndef SEEDBED_CPU_DENORMALS_H_
#define SEEDBED_CPU_DENORMALS_H_

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace seedbed {

class FlushDenormals {
 public:
  FlushDenormals() : saved_(read()) { write(saved_ | kFlush); }
  ~FlushDenormals() { write(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr uint64_t kFlush = 0x8040;  // flush results to zero, take inputs as zero
  static uint64_t read() { return _mm_getcsr(); }
  static void write(uint64_t value) { _mm_setcsr(static_cast<unsigned>(value)); }
#else
  static constexpr uint64_t kFlush = uint64_t{1} << 24;  // FPCR.FZ: both
  static uint64_t read() {
    uint64_t value;
    asm volatile("mrs %0, fpcr" : "=r"(value));
    return value;
  }
  static void write(uint64_t value) { asm volatile("msr fpcr, %0" : : "r"(value)); }
#endif
  uint64_t saved_;
};

}  // namespace seedbed

#endif  // SEEDBED_CPU_DENORMALS_H_
