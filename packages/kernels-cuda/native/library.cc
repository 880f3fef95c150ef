#include "library.h"

#include <dlfcn.h>
#include <glob.h>
#include <sys/stat.h>

#include <cstdlib>
#include <vector>

namespace ds {

namespace {

// A place to look in: a folder, or "" for what is loaded already and the system's own search.
using Places = std::vector<std::string>;

std::string variable(const char* name) {
  const char* value = getenv(name);
  return value ? value : "";
}

Places split(const std::string& list) {
  Places parts;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = list.find(':', begin) == std::string::npos ? list.size() : list.find(':', begin);
    if (end > begin) parts.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

bool is_file(const std::string& path) {
  struct stat s;
  return stat(path.c_str(), &s) == 0 && S_ISREG(s.st_mode);
}

void add_matches(const std::string& pattern, Places* to) {
  glob_t found = {};
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0)
    for (size_t i = 0; i < found.gl_pathc; i++) to->push_back(found.gl_pathv[i]);
  globfree(&found);
}

void add_toolkit(const std::string& home, Places* to) {
  if (home.empty()) return;
  to->push_back(home + "/lib64");
  to->push_back(home + "/lib");
  add_matches(home + "/targets/*/lib", to);
}

// Folders of NVIDIA's wheels below a Python prefix: nvidia/cu13/lib holds several libraries, nvidia/cublas/lib and its like one each.
void add_wheels(const std::string& prefix, Places* to) {
  if (prefix.empty()) return;
  for (const char* site : {"/lib/python3*/site-packages", "/lib/python3*/dist-packages", "/lib/python3/dist-packages"})
    add_matches(prefix + site + "/nvidia/*/lib", to);
}

// The prefix of the python3 that PATH finds. A virtual environment's python3 is a link out of it, so the link itself counts.
std::string python_prefix() {
  for (const std::string& folder : split(variable("PATH"))) {
    if (!is_file(folder + "/python3")) continue;
    const size_t slash = folder.find_last_of('/');
    return slash == std::string::npos ? "" : folder.substr(0, slash);
  }
  return "";
}

Places usual_places() {
  Places places = {""};
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"}) add_toolkit(variable(name), &places);
  add_toolkit("/usr/local/cuda", &places);
  for (const char* name : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    add_wheels(variable(name), &places);
    if (!variable(name).empty()) places.push_back(variable(name) + "/lib");
  }
  add_wheels(python_prefix(), &places);
  if (!variable("HOME").empty()) add_wheels(variable("HOME") + "/.local", &places);
  for (const char* prefix : {"/usr/local", "/usr"}) add_wheels(prefix, &places);
  return places;
}

// The library of `name` at a place; a file that is there and cannot be opened is worth telling.
bool open_at(const std::string& place, const char* name, Library* library, std::string* broken) {
  const std::string path = place.empty() ? name : is_file(place) ? place : place + "/" + name;
  if (!place.empty() && !is_file(path)) return false;
  library->handle = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!library->handle) {
    const char* why = dlerror();
    if (!place.empty()) *broken += "; " + path + " could not be opened (" + (why ? why : "no reason given") + ")";
    return false;
  }
  library->path = path;
  return true;
}

bool open_in(const Places& places, const char* const* names, Library* library, std::string* broken) {
  // The first name first, wherever it is: an old library on the system's path must not hide a new one in a wheel.
  for (; *names; names++)
    for (const std::string& place : places)
      if (open_at(place, *names, library, broken)) return true;
  return false;
}

}  // namespace

Library open_library(const char* variable_name, const char* const* names) {
  Library library;
  std::string broken;
  // Where the variable names a place, only that counts: whoever names one means that library and no other.
  const Places wanted = split(variable(variable_name)), places = wanted.empty() ? usual_places() : wanted;
  if (open_in(places, names, &library, &broken)) return library;

  std::string& text = library.reason;
  for (const char* const* name = names; *name; name++) text += (name == names ? "" : " or ") + std::string(*name);
  if (!wanted.empty()) {
    text += std::string(" was not found where ") + variable_name + "=" + variable(variable_name) + " points" + broken +
            "; correct it, or unset it to look in the usual places";
    return library;
  }
  text += " was not found; looked in the system's library path";
  for (const std::string& folder : places)
    if (!folder.empty()) text += ", " + folder;
  text += " and the wheels below VIRTUAL_ENV, CONDA_PREFIX and python3's prefix" + broken + "; set " + variable_name +
          " to its folder if it is elsewhere";
  return library;
}

bool load_symbols(const Library& library, const Symbol* symbols, size_t count, std::string* missing) {
  for (size_t i = 0; i < count; i++) {
    *symbols[i].target = dlsym(library.handle, symbols[i].name);
    if (*symbols[i].target) continue;
    *missing = symbols[i].name;
    return false;
  }
  return true;
}

}  // namespace ds
