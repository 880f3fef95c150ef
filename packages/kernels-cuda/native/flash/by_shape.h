// The choice of a tensor-core kernel by head_dim and mask.
#pragma once
#include <type_traits>

#include "flash/shape.h"

namespace ds {
namespace flash {

// f(head_dim) as a std::integral_constant.
template <class F> const char* by_head_dim(const Shape& s, const F& f) {
  switch (s.head_dim) {
    case 64: return f(std::integral_constant<int, 64>{});
    case 96: return f(std::integral_constant<int, 96>{});
    case 128: return f(std::integral_constant<int, 128>{});
    default: return f(std::integral_constant<int, 256>{});
  }
}

// f(head_dim, causal), likewise.
template <class F> const char* by_shape(const Shape& s, const F& f) {
  return by_head_dim(s, [&](auto d) { return s.causal ? f(d, std::true_type{}) : f(d, std::false_type{}); });
}

// Two stages where they fit.
inline int stages_for(size_t two) { return two <= device_properties().shared_memory ? 2 : 1; }

}  // namespace flash
}  // namespace ds
