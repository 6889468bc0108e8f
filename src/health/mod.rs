//! Health: facts (gathered), rules (pure), verdict (a value). Rendering is the faces' affair.
